"""Models swapped between two requests, and scored in the shadow of another, in one process."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from features.problems import UserError
from serving.held import prepare
from serving.model import load
from serving.pointer import Pointer, PointerError
from serving.settings import Settings
from serving.slot import EVENTS, ModelSlot
from training import model_folder

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DEAL = {"stage": "propose", "amount": 120000.0, "competitor": "acme"}


@pytest.fixture(scope="module")
def models(tmp_path_factory, made):
    """Two models of the same features, whose answers differ, and one of others."""
    place, card = tmp_path_factory.mktemp("models"), made.scorecard()
    spring = replace(card, baseline=np.r_[0.11, card.baseline[1:]])
    other = [made.number("seats", 50.0), made.category("stage", *made.stages), made.boolean("amount")]
    named = {**made.facts, "name": "stepin", "amount_feature": None}
    return SimpleNamespace(
        winter=made.folder(place / "winter", card, {**named, "version": "1"}),
        spring=made.folder(place / "spring", spring, {**named, "version": "2"}),
        other=made.folder(place / "other", made.scorecard(other), {**named, "source_kind": "flat"}),
        place=place,
    )


def pointer_to(folder, version, **more):
    return Pointer(str(folder), "stepin", version, model_folder.verify(folder).digest, **more)


@pytest.fixture
def moving(tmp_path, models):
    """A slot that follows a pointer, first at winter, and all that it told."""
    path, told = tmp_path / "served.json", []
    pointer_to(models.winter, "1").write(path)
    settings = Settings(models.winter, model_pointer=path, poll_seconds=0.05)
    slot = ModelSlot.open(settings, lambda kind, sentence: told.append((kind, sentence)))
    yield SimpleNamespace(slot=slot, path=path, told=told, settings=settings)
    assert {kind for kind, _ in told} <= set(EVENTS)


def look(slot):
    asyncio.run(slot.look())


def ask(slot, features=DEAL):
    held = slot.current
    body = json.dumps({"deal_id": "D-1", "features": features}).encode()
    served, shadow = held.answer(held.reader.one(body), NOW)
    return json.loads(served.body), served, shadow


def test_another_model_is_taken_when_the_pointer_names_it_and_back_again(moving, models):
    digests = {
        version: model_folder.verify(getattr(models, version)).digest for version in ("winter", "spring")
    }
    answers = [ask(moving.slot)[0]]
    for folder, version in ((models.spring, "2"), (models.winter, "1")):
        pointer_to(folder, version).write(moving.path)
        look(moving.slot)
        answers.append(ask(moving.slot)[0])
    assert [answer["model"]["version"] for answer in answers] == ["1", "2", "1"]
    assert [answer["model"]["digest"] for answer in answers] == [
        digests["winter"],
        digests["spring"],
        digests["winter"],
    ]
    assert answers[1]["uplift_points"] - answers[0]["uplift_points"] == pytest.approx(8.5)
    assert answers[2]["uplift_points"] == answers[0]["uplift_points"]
    assert moving.told == [
        ("model_swapped", "stepin 2 answers, in place of stepin 1."),
        ("model_swapped", "stepin 1 answers, in place of stepin 2."),
    ]


def test_a_pointer_that_did_not_change_is_not_read_again(moving, models, monkeypatch):
    look(moving.slot)
    before = moving.slot.current
    monkeypatch.setattr(Pointer, "read", lambda path: pytest.fail("read again"))
    look(moving.slot)
    assert moving.slot.current is before
    assert moving.told == []


def test_a_request_keeps_the_model_that_it_began_with(moving, models):
    held = moving.slot.current
    asked = held.reader.one(json.dumps({"deal_id": "D", "features": DEAL}).encode())
    pointer_to(models.other, "3").write(moving.path)
    look(moving.slot)
    assert json.loads(held.answer(asked, NOW)[0].body)["model"]["version"] == "1"
    answer, _, _ = ask(moving.slot, {"seats": 5, "stage": "propose"})
    assert "seats" in {each["feature"] for each in answer["reasons"]}


def damaged(models, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in models.spring.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "scorecard.npz").write_bytes(b"broken")
    return folder


def test_a_broken_successor_is_refused_once_and_the_former_model_serves_on(
    moving, models, tmp_path, monkeypatch
):
    folder, loaded = damaged(models, tmp_path), []
    monkeypatch.setattr("serving.held.load", lambda settings: loaded.append(settings.model) or load(settings))
    sentence = (
        f"{folder} is a damaged model: scorecard.npz is missing or was changed after it was written. "
        "Copy the model again from where it was made, or train again."
    )
    Pointer(str(folder), "stepin", "9", "sha256:" + 64 * "0").write(moving.path)
    for _ in range(3):
        look(moving.slot)
    assert moving.told == [("successor_refused", sentence)]
    assert loaded == [folder]
    assert ask(moving.slot)[0]["model"]["version"] == "1"
    assert moving.slot.state()["successor_refused"] == sentence
    assert moving.slot.state()["model"]["version"] == "1"

    pointer_to(models.spring, "2").write(moving.path)
    look(moving.slot)
    assert moving.slot.state()["successor_refused"] is None
    assert ask(moving.slot)[0]["model"]["version"] == "2"


def test_going_back_from_a_broken_successor_clears_what_was_told(moving, models, tmp_path):
    Pointer(str(damaged(models, tmp_path)), "stepin", "9", "sha256:0").write(moving.path)
    look(moving.slot)
    before = moving.slot.current
    pointer_to(models.winter, "1").write(moving.path)
    look(moving.slot)
    assert moving.slot.current is before
    assert moving.slot.state()["successor_refused"] is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "The pointer file served.json is not readable as one; "),
        (b"[]", "The pointer file served.json is not readable as one; "),
        (b'{"folder": "here", "name": "a", "digest": "b"}', "The pointer file served.json is not readable "),
        (b'{"folder": "/here", "name": 3, "digest": "b"}', "The pointer file served.json is not readable "),
        (b"[" * 60000, "The pointer file served.json is not readable as one; "),
    ],
)
def test_a_pointer_that_is_none_is_refused_and_told(moving, content, sentence):
    moving.path.write_bytes(content)
    look(moving.slot)
    assert [kind for kind, _ in moving.told] == ["successor_refused"]
    assert moving.told[0][1].startswith(sentence)
    with pytest.raises(PointerError):
        Pointer.read(moving.path)


def test_a_folder_with_another_digest_than_announced_is_refused(moving, models):
    Pointer(str(models.spring), "stepin", "2", "sha256:" + 64 * "0").write(moving.path)
    look(moving.slot)
    assert moving.told == [
        (
            "successor_refused",
            f"{models.spring} holds another model than the one that was announced; its digest differs.",
        )
    ]


def test_a_model_that_fails_on_a_trial_deal_is_refused(models, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("serving.held.Recommender.answer", fail)
    with pytest.raises(UserError) as refused:
        prepare(Settings(models.winter))
    assert str(refused.value) == (
        f"The model in {models.winter} cannot answer (ZeroDivisionError on a trial deal). Train it again."
    )


def test_what_the_watcher_says_of_the_registry_is_told_and_taken_back(moving, models):
    lost = "MLflow's store is not reachable."
    pointer_to(models.winter, "1", trouble="registry_lost", sentence=lost).write(moving.path)
    look(moving.slot)
    assert moving.slot.state()["registry_lost"] == lost
    pointer_to(models.winter, "1").write(moving.path)
    look(moving.slot)
    assert moving.slot.state()["registry_lost"] is None
    assert moving.told == [("registry_lost", lost), ("registry_back", "The registry answers again.")]
    pointer_to(models.winter, "1", trouble="successor_refused", sentence="Version 2 is gone.").write(
        moving.path
    )
    look(moving.slot)
    assert moving.slot.state()["successor_refused"] == "Version 2 is gone."


def test_a_process_that_starts_later_takes_what_the_pointer_names(models, tmp_path):
    path = tmp_path / "served.json"
    pointer_to(models.spring, "2").write(path)
    slot = ModelSlot.open(Settings(models.winter, model_pointer=path))
    assert slot.state()["model"]["version"] == "2"


def test_a_process_that_starts_while_the_pointer_is_broken_serves_the_first_model_and_says_so(
    models, tmp_path
):
    path = tmp_path / "served.json"
    Pointer(str(damaged(models, tmp_path)), "stepin", "9", "sha256:0").write(path)
    slot = ModelSlot.open(Settings(models.winter, model_pointer=path))
    look(slot)
    assert slot.state()["model"]["version"] == "1"
    assert "is a damaged model" in slot.state()["successor_refused"]


def test_followed_in_the_background_a_swap_comes_within_the_poll_interval(moving, models):
    async def go():
        task = asyncio.create_task(moving.slot.follow())
        pointer_to(models.spring, "2").write(moving.path)
        for _ in range(200):
            await asyncio.sleep(0.01)
            if moving.slot.state()["model"]["version"] == "2":
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert moving.slot.state()["model"]["version"] == "2"


def test_a_listener_that_fails_does_not_stop_the_following(models, tmp_path):
    def fail(_kind, _sentence):
        raise OSError

    path = tmp_path / "served.json"
    pointer_to(models.winter, "1").write(path)
    slot = ModelSlot.open(Settings(models.winter, model_pointer=path), fail)
    for folder, version in ((models.spring, "2"), (tmp_path, "9"), (models.winter, "1")):
        Pointer(str(folder), "stepin", version, "").write(path)
        look(slot)
    pointer_to(models.spring, "2").write(path)
    look(slot)
    assert slot.state()["model"]["version"] == "2"


def test_where_nothing_moves_nothing_is_polled(models):
    asyncio.run(asyncio.wait_for(ModelSlot.open(Settings(models.winter)).follow(), 1))


class TestShadow:
    def test_it_scores_beside_and_bears_the_id_of_the_answer(self, models):
        slot = ModelSlot.open(Settings(models.winter, shadow=models.spring))
        answer, served, shadow = ask(slot)
        assert (served.record["role"], shadow.record["role"]) == ("served", "shadow")
        assert shadow.record["recommendation_id"] == served.recommendation_id == shadow.recommendation_id
        assert (
            shadow.record["model_digest"] == slot.state()["shadow"]["digest"] != served.record["model_digest"]
        )
        assert 100 * (shadow.record["uplift"] - served.record["uplift"]) == pytest.approx(8.5)
        assert answer["model"]["version"] == "1"

    def test_many_are_scored_beside_like_one(self, models):
        held = ModelSlot.open(Settings(models.winter, shadow=models.spring)).current
        body = {"deals": [{"deal_id": f"D-{i}", "features": {**DEAL, "days_open": i}} for i in range(5)]}
        asked = held.reader.many(json.dumps(body).encode())
        served, shadows = held.answer_many(asked, NOW)
        assert [each.recommendation_id for each in shadows] == [each.recommendation_id for each in served]
        for deal, shadow in zip(asked, shadows, strict=True):
            alone = held.answer(deal, NOW)[1].record
            for column in ("deal_id", "advice", "uplift", "model_digest", "role"):
                assert shadow.record[column] == (
                    pytest.approx(alone[column], abs=1e-12) if column == "uplift" else alone[column]
                )

    def test_a_shadow_of_other_features_gets_those_that_it_knows(self, models):
        slot = ModelSlot.open(Settings(models.winter, shadow=models.other))
        _, _, shadow = ask(slot, {"stage": "propose", "days_open": 12})
        assert json.loads(shadow.record["facts"]) == {"stage": "propose"}
        assert slot.shadow_failures == 0

    def test_a_shadow_that_fails_never_hurts_the_answer_and_is_counted(self, models):
        told = []
        slot = ModelSlot.open(
            Settings(models.winter, shadow=models.other), lambda kind, sentence: told.append((kind, sentence))
        )
        alone = ask(ModelSlot.open(Settings(models.winter)))[0]
        for _ in range(3):  # the amount is a boolean to the shadow
            answer, _, shadow = ask(slot)
            assert shadow is None
            assert answer["uplift_points"] == alone["uplift_points"]
        assert slot.shadow_failures == 3
        assert [kind for kind, _ in told if kind == "shadow_failed"] == ["shadow_failed"]

    def test_a_shadow_that_raises_what_nobody_thought_of_never_hurts_either(self, models):
        slot = ModelSlot.open(Settings(models.winter, shadow=models.spring))

        class Broken:
            def answer(self, *_):
                raise MemoryError

        slot.current = replace(slot.current, shadow=replace(slot.shadow, recommender=Broken()))
        _, served, shadow = ask(slot)
        assert served.record["role"] == "served"
        assert (shadow, slot.shadow_failures) == (None, 1)

    def test_a_shadow_that_cannot_be_read_keeps_nobody_from_starting(self, models, tmp_path):
        told = []
        slot = ModelSlot.open(
            Settings(models.winter, shadow=tmp_path / "nothing"), lambda *event: told.append(event)
        )
        assert ask(slot)[2] is None
        assert [kind for kind, _ in told] == ["shadow_refused"]
        assert slot.state()["shadow_refused"].startswith(f"{tmp_path / 'nothing'} is not a folder")

    def test_who_listens_later_hears_what_happened_before(self, models, tmp_path):
        slot, told = ModelSlot.open(Settings(models.winter, shadow=tmp_path / "nothing")), []
        slot.listen(lambda kind, _sentence: told.append(kind))
        assert told == ["shadow_refused"]
        slot.listen(lambda kind, _sentence: told.append(kind))
        assert told == ["shadow_refused"]

    def test_the_shadow_outlives_a_swap_of_the_model_and_moves_by_itself(self, models, tmp_path):
        served, shadow = tmp_path / "served.json", tmp_path / "shadow.json"
        pointer_to(models.winter, "1").write(served)
        slot = ModelSlot.open(Settings(models.winter, model_pointer=served, shadow_pointer=shadow))
        assert slot.shadow is None
        pointer_to(models.spring, "2").write(shadow)
        look(slot)
        assert ask(slot)[2].record["model_version"] == "2"
        pointer_to(models.spring, "2").write(served)
        look(slot)
        _, answer, beside = ask(slot)
        assert (answer.record["model_version"], beside.record["model_version"]) == ("2", "2")
        pointer_to(models.winter, "1").write(shadow)
        look(slot)
        _, answer, beside = ask(slot)
        assert (answer.record["model_version"], beside.record["model_version"]) == ("2", "1")
