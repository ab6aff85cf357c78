"""What a command leaves: one JSON document, a demo that ends, nothing when it is stopped."""

import signal
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest
from command_line import STEPIN, done, everything_in, one_document, run

import stepin
from stepin_cli import console, demo


def test_training_says_one_json_document_and_its_progress_elsewhere(learned):
    folder, said = learned
    document = one_document(said.out)
    assert document["model"] == str(folder)
    assert document["version"] == 1
    assert document["facts"]["name"] == "spring"
    assert [line.partition(",")[0] for line in said.err.splitlines()] == [
        "[1/7] Reading and building decisions",
        "[2/7] Putting the deals in order of time",
        "[3/7] Learning from older deals and judging on newer ones",
        "[4/7] Learning from all of them",
        "[5/7] Doubting the result",
        "[6/7] Writing the model",
        "[7/7] Recording the run",
    ]


def test_every_other_command_says_one_json_document_too(learned, crm, here):
    assert one_document(done("simulate", "new", "--deals", "100", "--json").out)["rows"]["deals"] == 100
    assert one_document(done("features", crm, "out.parquet", "--json").out)["decisions"] > 1000
    assert one_document(done("promote", "spring", "1", "--json").out)["champion"] == 1
    asked = {
        command.name for command in stepin.cli.commands.values() for p in command.params if "--json" in p.opts
    }
    assert asked == {"demo", "simulate", "import", "features", "train", "score", "promote", "rollback"}


@pytest.mark.parametrize(
    "options", [(), ("--every-days", "30", "--against", "never")], ids=["usual", "other"]
)
def test_features_prints_the_trial_and_where_every_moment_went(options, crm, here):
    about = one_document(done("features", crm, "a.parquet", *options, "--json").out)["about"]
    lines = done("features", crm, "b.parquet", *options).out.splitlines()
    assert lines[:7] == [f"{part}: {words}" for part, words in about["protocol"]]
    at = lines.index(next(line for line in lines if line.startswith("b.parquet: "))) + 1
    asked, *left_out, kept = (
        int(line.split("  ")[-2].replace(",", "")) for line in lines[at : at + len(about["flow"])]
    )
    assert asked - sum(left_out) == kept > 100
    last = about["flow"][-1]
    assert f"  {last['n']:>9,}  decisions ({last['deals']:,} deals): {last['why']}" in lines
    never = "deals joined later are weighted away by the inverse probability of that."
    assert lines[6].endswith(never) is bool(options)


def test_what_is_no_number_becomes_null_in_json():
    text = console.as_one_document({"a": float("nan"), "b": [float("inf"), (1.5,)], "c": Path("x")})
    assert one_document(text) == {"a": None, "b": [None, [1.5]], "c": "x"}


def test_the_demo_says_one_json_document_and_ends(here, monkeypatch):
    monkeypatch.setattr(demo, "_stepin", lambda _console, *line: done(*line))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    said = done("demo", "--deals", "1500", "--out", "demo", "--json")
    document = one_document(said.out)
    assert document["answers"]
    assert document["one"]["playbook"]
    assert set(document) == {"folder", "model", "open_deals", "url", "answers", "one", "truth"}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(document["url"])
    assert everything_in(here)[0] == "demo"
    assert {path.name for path in here.iterdir()} == {"demo"}


def test_the_demos_server_is_not_ended_once_it_has_started(model, monkeypatch):
    timers = []

    class Remembered(threading.Timer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Remembered)
    with demo.serving(str(model)) as (url, server):
        assert timers[0].finished.is_set()
        assert server.poll() is None
        with urllib.request.urlopen(f"{url}/healthz", timeout=20) as reply:
            assert reply.status == 200
    assert server.returncode == 0


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_leaves_nothing_and_no_traceback(kind, crm, here):
    process = subprocess.Popen(
        [*STEPIN, "train", str(crm), "--out", "model", "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = [process.stderr.readline(), process.stderr.readline()]
    assert said[1].startswith("[2/7] Putting the deals in order of time")  # it is learning now
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    assert err.strip() == "stepin: stopped before it was done."
    assert (process.returncode, out) == (1, "")
    assert everything_in(here) == []


def test_a_store_that_fails_after_training_does_not_lose_the_model(crm, here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysterious://nowhere")
    said = run("train", crm, "--out", "model", "--jobs", "1")
    assert said.status == 1
    assert said.err.splitlines()[-1].startswith(
        "stepin: model holds the whole model, but the run was not recorded: MLflow's store mysterious://"
    )
    monkeypatch.undo()
    done("score", here / "model", crm, here / "out.parquet")
