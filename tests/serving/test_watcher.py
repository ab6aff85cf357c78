"""An alias in a real registry moves while requests are answered; processes start, survive and end."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from features.problems import UserError
from serving import watcher
from serving.follow import following, start_watcher
from serving.pointer import Pointer
from serving.settings import Settings
from serving.slot import ModelSlot
from serving.watcher import Watch
from training import model_folder, registry

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DEAL = json.dumps({"deal_id": "D-1", "features": {"stage": "propose", "amount": 120000.0}}).encode()
POLL_SECONDS = 1.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def register(store, folder, name="stepin"):
    return registry.log_run(
        "deals", {}, {}, {"data_digest": "sha256:0"}, folder, register_as=name, tracking_uri=store
    ).version


@pytest.fixture(scope="module")
def models(tmp_path_factory, made, store):
    """Versions 1 and 2, whose uplifts differ by 8.5 points for every deal, registered in that order."""
    place, card = tmp_path_factory.mktemp("models"), made.scorecard()
    spring = replace(card, baseline=np.r_[0.11, card.baseline[1:]])
    folders = [made.folder(place / "winter", card), made.folder(place / "spring", spring)]
    assert [register(store, folder) for folder in folders] == [1, 2]
    return SimpleNamespace(
        folders=folders, digests=[model_folder.verify(folder).digest for folder in folders], place=place
    )


@pytest.fixture
def settings(store, models, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    registry.promote("stepin", 1, store)
    return Settings(Path("models:/stepin@champion"), poll_seconds=POLL_SECONDS)


def until(is_so, seconds=30.0):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


class Asked:
    """A loop of requests against a slot, beside which aliases move."""

    def __init__(self, slot):
        self.slot, self.answers, self.failures = slot, [], []

    async def ask_until(self, finished):
        following = asyncio.create_task(self.slot.follow())
        askers = [asyncio.create_task(self._ask(finished)) for _ in range(4)]
        try:
            await asyncio.gather(*askers)
        finally:
            following.cancel()

    async def _ask(self, finished):
        while not finished.is_set():
            held = self.slot.current
            try:
                asked = held.reader.one(DEAL)
                await asyncio.sleep(0.001)  # a swap may come between reading and answering
                answer = json.loads(held.answer(asked, NOW)[0].body)
                self.answers.append(
                    (answer["model"]["version"], answer["model"]["digest"], answer["uplift_points"])
                )
            except Exception as error:
                self.failures.append(error)
            await asyncio.sleep(0.001)


def test_the_alias_moves_back_and_forth_and_no_request_fails(settings, models, store):
    with following(settings) as followed:
        slot = ModelSlot.open(followed)
        asked, finished, waits = Asked(slot), threading.Event(), []
        thread = threading.Thread(target=lambda: asyncio.run(asked.ask_until(finished)))
        thread.start()
        try:
            for version in (2, 1, 2):
                (registry.rollback if version == 1 else registry.promote)(
                    "stepin", *([] if version == 1 else [version]), tracking_uri=store
                )
                start = time.monotonic()
                until(lambda v=version: slot.state()["model"]["version"] == str(v))
                waits.append(time.monotonic() - start)
        finally:
            finished.set()
            thread.join()
    assert asked.failures == []
    seen = Counter((version, digest) for version, digest, _ in asked.answers)
    assert set(seen) == {("1", models.digests[0]), ("2", models.digests[1])}
    points = {version: {round(p, 9) for v, _, p in asked.answers if v == version} for version in "12"}
    assert [len(points[version]) for version in "12"] == [1, 1]
    assert points["2"].pop() - points["1"].pop() == pytest.approx(8.5)
    order = [version for version, _, _ in asked.answers]
    assert sum(a != b for a, b in pairwise(order)) == 3
    assert min(waits) < POLL_SECONDS


def test_a_broken_successor_is_refused_by_name_and_left_again(settings, models, store, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(models.folders[1], broken)
    (broken / "scorecard.npz").write_bytes(b"broken")
    version = register(store, broken)
    with following(settings) as followed:
        slot = ModelSlot.open(followed)
        registry.promote("stepin", version, store)
        until(lambda: asyncio.run(slot.look()) or slot.state()["successor_refused"])
        assert (
            "is a damaged model: scorecard.npz is missing or was changed" in slot.state()["successor_refused"]
        )
        assert slot.state()["model"]["version"] == "1"
        later = ModelSlot.open(followed)  # a worker that starts only now
        assert later.state()["model"] == slot.state()["model"]
        assert later.state()["successor_refused"] == slot.state()["successor_refused"]
        registry.rollback("stepin", store)
        until(lambda: asyncio.run(slot.look()) or slot.state()["successor_refused"] is None)
        assert slot.state()["model"]["version"] == "1"


def test_an_address_that_names_nothing_is_refused_and_nothing_is_left(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UserError) as refused:
        start_watcher(replace(settings, model=Path("models:/stepin@best")))
    assert str(refused.value).startswith(
        "No model 'stepin' with the alias 'best'. Versions of 'stepin': 1, 2"
    )
    assert list(tmp_path.iterdir()) == []


def test_folders_need_no_watcher(models):
    settings = Settings(models.folders[0], shadow=models.folders[1])
    assert start_watcher(settings) is None
    with following(settings) as followed:
        assert followed is settings


def test_a_shadow_without_a_model_is_said_and_taken_once_it_is_there(settings, models, store):
    asked_for = replace(settings, model=models.folders[0], shadow=Path("models:/stepin@trial"))
    with following(asked_for) as followed:
        assert (followed.model, followed.shadow) == (models.folders[0], None)
        slot = ModelSlot.open(followed)
        until(lambda: asyncio.run(slot.look()) or slot.state()["registry_lost"])
        assert slot.state()["registry_lost"].startswith("No model 'stepin' with the alias 'trial'.")
        _set_alias(store, "trial", 2)
        until(lambda: asyncio.run(slot.look()) or slot.shadow)
        assert slot.state()["registry_lost"] is None
        held = slot.current
        served, shadow = held.answer(held.reader.one(DEAL), NOW)
        assert (served.record["model_digest"], shadow.record["model_digest"]) == tuple(models.digests)


def _set_alias(store, alias, version):
    import mlflow

    mlflow.MlflowClient(store).set_registered_model_alias("stepin", alias, version)


@contextmanager
def a_parent(settings):
    """A process that follows, as the server does, and says who its watcher is."""
    code = (
        "import os, time\nfrom serving.follow import start_watcher\nfrom serving.settings import Settings\n"
        "watching = start_watcher(Settings.from_environ(os.environ))\n"
        "print(watching.process.pid, watching.place, flush=True)\ntime.sleep(60)"
    )
    environ = {**os.environ, **settings.to_environ()}
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        pid, place = process.stdout.readline().split(maxsplit=1)
        yield process, int(pid), Path(place.strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_watcher_ends_when_the_server_is_killed_and_leaves_nothing(settings):
    with a_parent(settings) as (process, pid, place):
        assert is_running(pid)
        assert place.is_dir()
        process.kill()
        until(lambda: not is_running(pid))
        assert not place.exists()


def test_a_watcher_that_dies_is_started_again(settings, store, monkeypatch):
    monkeypatch.setattr("serving.follow.RESTART_SECONDS", 0.1)
    with following(settings) as followed:
        slot = ModelSlot.open(followed)
        [watching] = [t._target.__self__ for t in threading.enumerate() if t.name == "serving.watcher"]
        first = watching.process.pid
        os.kill(first, signal.SIGKILL)
        registry.promote("stepin", 2, store)
        until(lambda: asyncio.run(slot.look()) or slot.state()["model"]["version"] == "2")
        second = watching.process.pid
        assert second != first
    until(lambda: not is_running(second))


class TestPolling:
    """The watcher's own steps, without a process."""

    @pytest.fixture
    def watch(self, settings, tmp_path):
        return Watch("served", "models:/stepin@champion", tmp_path / "served.json", settings)

    def test_a_lost_registry_keeps_the_model_and_is_said_until_it_is_back(self, watch, monkeypatch):
        watch.poll()
        before = Pointer.read(watch.pointer_path)
        assert (before.version, before.trouble) == ("1", None)
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", "mysterious://nowhere")
            watch.poll()
        lost = Pointer.read(watch.pointer_path)
        assert replace(lost, trouble=None, sentence=None) == before
        assert lost.trouble == "registry_lost"
        assert lost.sentence.startswith("MLflow's store mysterious://nowhere refused: ")
        watch.poll()
        assert Pointer.read(watch.pointer_path) == before

    def test_a_watcher_started_again_while_the_registry_is_away_keeps_the_model(
        self, watch, settings, monkeypatch
    ):
        watch.poll()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysterious://nowhere")
        [again] = watcher.watches(replace(settings, model_pointer=watch.pointer_path))
        again.poll()
        now = Pointer.read(watch.pointer_path)
        assert (now.folder, now.trouble) == (watch.pointer.folder, "registry_lost")

    def test_a_failure_that_nobody_thought_of_is_a_sentence_too(self, watch, monkeypatch):
        def fail(_address):
            raise ConnectionResetError

        monkeypatch.setattr(registry, "look_up", fail)
        watch.poll()
        assert Pointer.read(watch.pointer_path).sentence == (
            "models:/stepin@champion could not be looked up (ConnectionResetError)."
        )

    def test_a_version_is_fetched_once_and_a_pointer_written_once(self, watch, monkeypatch):
        watch.poll()
        stamp = watch.pointer_path.stat().st_mtime_ns
        monkeypatch.setattr(registry, "locate", lambda *_, **__: pytest.fail("fetched again"))
        watch.poll()
        assert watch.pointer_path.stat().st_mtime_ns == stamp

    def test_files_that_cannot_be_had_are_asked_for_again_after_a_while(self, watch, store, monkeypatch):
        clock = [0.0]
        watch.clock = lambda: clock[0]
        watch.poll()
        registry.promote("stepin", 2, store)
        tries = []

        def fail(*_, **__):
            tries.append(clock[0])
            raise OSError

        with monkeypatch.context() as patch:
            patch.setattr(registry, "locate", fail)
            for clock[0] in (1.0, 2.0, 59.0, 62.0, 63.0):
                watch.poll()
        assert tries == [1.0, 62.0]
        refused = Pointer.read(watch.pointer_path)
        assert (refused.version, refused.trouble) == ("1", "successor_refused")
        assert refused.sentence == "Version 2 of 'stepin' could not be fetched (OSError)."
        clock[0] = 200.0
        watch.poll()
        assert (watch.pointer.version, watch.pointer.trouble) == ("2", None)

    def test_a_model_at_fault_is_not_tried_again(self, watch, store, monkeypatch):
        watch.poll()
        registry.promote("stepin", 2, store)
        tries = []

        def fail(*_):
            tries.append(1)
            raise UserError("It cannot be served.")

        monkeypatch.setattr(watcher, "prepare", fail)
        watch.clock = lambda: 1e9 * len(tries)
        for _ in range(3):
            watch.poll()
        assert (len(tries), watch.pointer.sentence) == (1, "It cannot be served.")
        registry.rollback("stepin", store)
        watch.poll()
        assert watch.pointer.trouble is None

    def test_at_most_two_copies_are_kept(self, watch, store):
        for version in (1, 2, 1, 2):
            registry.promote("stepin", version, store)
            watch.poll()
        copies = [each for each in watch.pointer_path.parent.iterdir() if each.is_dir()]
        assert len(copies) == 2
        assert Path(watch.pointer.folder).is_dir()
