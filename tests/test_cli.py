"""The command line as a user meets it: what it says, where it says it, and what it leaves behind."""

import gzip
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

import stepin
import training.config
from stepin_cli import console as stepin_console
from stepin_cli import demo as stepin_demo

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
STEPIN = [sys.executable, "-m", "stepin"]
COMMANDS = sorted(stepin.cli.commands)
HEAVY = ("numpy", "pandas", "pyarrow", "sklearn", "scipy", "mlflow", "fastapi", "rich")


@dataclass(frozen=True)
class QuickConfig(training.config.TrainingConfig):
    """Learns as the real one does, with less patience."""

    n_folds: int = 2
    draws: int = 30
    most_pairs: int = 1


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


def run(*arguments: object) -> Said:
    """Run a command in this process, as the shell would."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err), threadpool_limits(limits=1):
        try:
            stepin.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
    return Said(status, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Said:
    said = run(*arguments)
    assert said.status == 0, said.err
    return said


def one_document(text: str) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads(text, parse_constant=refuse)  # fails on anything before or after it
    assert isinstance(document, dict)
    return document


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module", autouse=True)
def quickly(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.config, "TrainingConfig", QuickConfig)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")
        yield


@pytest.fixture(scope="module")
def crm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crm") / "tables"
    done("simulate", folder, "--deals", "1500", "--seed", "1")
    return folder


@pytest.fixture(scope="module")
def learned(crm, tmp_path_factory):
    """What `stepin train --json --register` says, and the model folder."""
    folder = tmp_path_factory.mktemp("models") / "model"
    said = done("train", crm, "--out", folder, "--register", "spring", "--jobs", "1", "--json")
    return folder, said


@pytest.fixture(scope="module")
def model(learned):
    return learned[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder of one's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Help


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_quick_and_imports_nothing_heavy(command):
    code = (
        f"import sys; sys.argv = ['stepin', *{command.split()!r}, '--help']; import stepin\n"
        "try: stepin.main()\n"
        f"finally: print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        since = time.perf_counter()
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - since)
        if seconds[-1] < 0.7:
            break
    assert ended.stdout.startswith(f"Usage: stepin {command}".rstrip())
    assert ended.stderr == "[]\n"
    assert min(seconds) < 0.7


# Wrong usage: status 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fly", "No such command 'fly'. See: stepin --help"),
        ("train", "Missing argument 'SOURCE'. See: stepin train --help"),
        (
            "train x --jobs 0",
            "Invalid value for '--jobs': should be 1 or more, or -1 for one a core. See: stepin train --help",
        ),
        (
            "simulate x --deals many",
            "Invalid value for '--deals': 'many' is not a valid integer. See: stepin simulate --help",
        ),
        (
            "simulate x --seed -1",
            "Invalid value for '--seed': -1 is not in the range 0<=x<=2147483648. "
            "See: stepin simulate --help",
        ),
        (
            "serve x --port 99999",
            "Invalid value for '--port': 99999 is not in the range 0<=x<=65535. See: stepin serve --help",
        ),
        (
            "promote x one",
            "Invalid value for 'VERSION': 'one' is not a valid integer. See: stepin promote --help",
        ),
    ],
)
def test_wrong_usage_is_status_2_and_one_sentence(line, message, here):
    said = run(*line.split())
    assert (said.status, said.out) == (2, "")
    assert said.err == f"stepin: {message}\n"
    assert everything_in(here) == []


# Refused: status 1, one sentence, nothing written


def prepare(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "file").write_text("x")
    (here / "mine.csv").write_text("a,b\n1,2\n")
    (here / "mine.toml").write_text(
        '[stepped_in]\ncolumn = "a"\nyes = ["1"]\nno = ["0"]\n'
        '[outcome]\ncolumn = "b"\nyes = ["1"]\nno = ["0"]\n'
    )
    (here / "bad.toml").write_text("[stepped_in\n")
    (here / "random.csv").write_bytes(b"\xff\x00\xfe" + bytes(range(128, 256)) * 20)
    (here / "damaged.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 50)[:25])
    pd.DataFrame({"a": [1]}).to_parquet(here / "other.parquet")
    whole = (here / "other.parquet").read_bytes()
    (here / "cut.parquet").write_bytes(whole[: len(whole) // 2])


TABLES = "deals, stage_entries, involvements, partners, customers, relationships"
NO_PARQUET = (
    "Could not open Parquet input source 'cut.parquet': Parquet magic bytes not found in footer. "
    "Either the file is corrupted or this is not a parquet file."
)
REFUSED = [
    ("train nowhere", "nowhere does not exist; name a folder of CRM tables or a file."),
    (
        "train empty",
        f"empty lacks {TABLES}: each of {TABLES} is needed, as .parquet, .csv or .csv.gz; "
        "a table without rows still needs its header.",
    ),
    (
        "train mine.csv",
        "mine.csv needs a columns file that says what its columns mean: add --columns FILE.toml.",
    ),
    (
        "train random.csv --columns mine.toml",
        "random.csv is no text in utf-8; export it as CSV in that encoding.",
    ),
    (
        "train damaged.csv.gz --columns mine.toml",
        "damaged.csv.gz cannot be read as gz: "
        "Compressed file ended before the end-of-stream marker was reached.",
    ),
    (
        "train other.parquet",
        "other.parquet is not a decision table; write one with 'stepin features', "
        "or say what its columns mean with --columns.",
    ),
    ("train cut.parquet", f"cut.parquet cannot be read as a decision table: {NO_PARQUET}"),
    ("train cut.parquet --columns mine.toml", f"cut.parquet cannot be read as parquet: {NO_PARQUET}"),
    (
        "train empty --columns mine.toml",
        "--columns belongs to a flat file; a folder of CRM tables needs none. Leave it out.",
    ),
    (
        "train mine.csv --columns bad.toml",
        "bad.toml is not TOML: Expected ']' at the end of a table declaration (at line 1, column 12).",
    ),
    ("train mine.csv --columns no.toml", "no.toml cannot be read: No such file or directory."),
    ("train CRM --out file", "file exists and is no stepin model; name another folder with --out."),
    ("train CRM --out CRM", "CRM exists and is no stepin model; name another folder with --out."),
    (
        "train CRM --out MODEL",
        "MODEL already holds a model; name another folder with --out, or replace it with --overwrite.",
    ),
    (
        "train CRM --out file/model",
        "file/model cannot be written: HERE/file is a file, not a folder. Name another place.",
    ),
    (
        "train CRM --register a/b",
        "'a/b' is no model name; use letters, digits, spaces, '_', '.' and '-'.",
    ),
    ("train CRM --margin 2", "margin should be between 0 and 1; came 2.0."),
    ("train CRM --hours 3", "hours and cost_per_hour belong together: give both, or neither."),
    (
        "train CRM --hours 3 --cost-per-hour 90",
        "hours and cost_per_hour need a margin as well (for example 0.3).",
    ),
    ("train CRM --break-even nan", "break_even_points should be between -100 and 100; came nan."),
    ("simulate new --deals -5", "--deals is -5; a simulated CRM needs at least 100."),
    ("simulate empty/../CRM", "empty/../CRM exists and is not empty; name a new folder, or empty it first."),
    ("demo --deals 0 --out new", "--deals is 0; a simulated CRM needs at least 100."),
    (
        "demo --out CRM",
        "CRM holds something that is no demo of stepin; name another folder with --out.",
    ),
    (
        "features CRM no/where.parquet",
        "no/where.parquet cannot be written: there is no folder no. Make it first.",
    ),
    ("features CRM out.csv", "out.csv should end in .parquet: the table is written as Parquet."),
    (
        "features CRM out.parquet --grace-days 200",
        "grace_days is 200 and horizon_days 180; "
        "the window should be longer than 0 days and end before the horizon.",
    ),
    (
        "score MODEL CRM no/where.parquet",
        "no/where.parquet cannot be written: there is no folder no. Make it first.",
    ),
    (
        "score MODEL other.parquet other.parquet",
        "other.parquet is the source itself; name another file for the results.",
    ),
    (
        "score empty CRM out.parquet",
        "empty is no stepin model (it has no manifest.json). Make one with: stepin train SOURCE --out MODEL.",
    ),
    (
        "serve nowhere",
        "nowhere is not a folder; name a model folder, made with: stepin train SOURCE --out MODEL.",
    ),
    ("rollback nobody", "No model 'nobody' with the alias 'champion'. Registered models: spring."),
    ("promote spring 9", "No version 9 of model 'spring'. Versions of 'spring': 1."),
]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_cannot_be_is_refused_in_one_sentence_and_nothing_is_written(line, message, here, crm, model):
    prepare(here)
    places = {"CRM": crm, "MODEL": model}
    for name, target in places.items():
        (here / name).symlink_to(target)
    before = everything_in(here), everything_in(crm), everything_in(model)
    said = run(*line.split())
    assert said.err == f"stepin: {message.replace('HERE', str(here))}\n"
    assert (said.status, said.out) == (1, "")
    assert (everything_in(here), everything_in(crm), everything_in(model)) == before


def test_a_registered_model_that_is_not_there_is_refused(here):
    said = run("score", "models:/winter@champion", here, "out.parquet", "--columns", "x")
    assert said.err.startswith("stepin: --columns belongs to a flat file")
    said = run("serve", "models:/winter@champion")
    assert said.err == "stepin: No model 'winter' with the alias 'champion'. Registered models: spring.\n"
    assert (said.status, said.out) == (1, "")


def test_a_port_that_is_taken_is_refused(model):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = run("serve", model, "--port", port)
    assert said.status == 1
    assert said.err == (
        f"stepin: Cannot listen on port {port} of 127.0.0.1: address already in use. "
        "Choose another port; 0 takes a free one.\n"
    )


# Tables at fault


def changed(crm: Path, folder: Path, **changes) -> Path:
    """A copy of the CRM as CSV; a change makes a table of a table, or None of it."""
    folder.mkdir()
    for file in crm.glob("*.parquet"):
        table = pd.read_parquet(file)
        if file.stem in changes:
            table = changes[file.stem](table)
        if table is not None and file.stem != "truth":
            table.to_csv(folder / f"{file.stem}.csv", index=False)
    return folder


def with_first(column, value, n=1):
    def change(table):
        values = table[column].astype("object")
        values.iloc[:n] = value
        return table.assign(**{column: values})

    return change


def closed_before_created(table):
    day_before = table["created_at"] - pd.Timedelta(days=1)
    return table.assign(closed_at=day_before.where(table["outcome"] != "open"))


FIRST_FIVE = "D0000000, D0000001, D0000002, D0000003, D0000004, ..."
AT_FAULT = [
    ("a table is missing", {"partners": lambda _: None}, r".* lacks partners: each of .*"),
    (
        "text for a number",
        {"deals": with_first("amount", "lots", 7)},
        rf"deals\.csv: column 'amount' should be a number; came text: mend it, or leave it empty "
        rf"\(7 rows: {FIRST_FIVE}\)\.",
    ),
    (
        "an outcome nobody knows",
        {"deals": with_first("outcome", "Won ")},
        r"deals\.csv: column 'outcome' should be one of won, lost, open; came 'Won ' \(1 row: D0000000\)\.",
    ),
    (
        "a date in the future",
        {"deals": with_first("created_at", "2999-01-01")},
        r"deals\.csv: column 'created_at' should not lie in the future; it is .* UTC \(1 row: D0000000\)\.",
    ),
    (
        "closed before created",
        {"deals": closed_before_created},
        r"deals\.csv: column 'closed_at' should not lie before created_at \([\d]+ rows: D0000000, .*\)\.",
    ),
    (
        "an id twice",
        {"deals": lambda deals: pd.concat([deals, deals.head(1)])},
        r"deals\.csv: column 'deal_id' should name each row once; came more than once "
        r"\(2 rows: D0000000, D0000000\)\.",
    ),
    (
        "nobody ever stepped in",
        {"involvements": lambda table: table.head(0)},
        r"None of the [\d,]+ decisions stepped in; both kinds are needed to compare\.",
    ),
    (
        "nothing was won",
        {"deals": lambda deals: deals.assign(outcome=deals["outcome"].replace("won", "lost"))},
        r"None of the [\d,]+ decisions won within the horizon; both kinds are needed to compare\.",
    ),
]


@pytest.mark.parametrize(("_what", "changes", "message"), AT_FAULT, ids=[what for what, _, _ in AT_FAULT])
def test_a_table_at_fault_is_refused_in_one_sentence(_what, changes, message, crm, here):
    changed(crm, here / "tables", **changes)
    said = run("train", "tables", "--out", "model")
    assert re.fullmatch(f"stepin: {message}\n", said.err)
    assert (said.status, said.out) == (1, "")
    assert not list(here.glob("*model*"))


def test_missing_amounts_numbers_as_text_and_columns_that_say_nothing_are_no_fault(crm, here):
    def untidy(deals):
        texts = deals["amount"].map(lambda amount: f"{amount:.1f}", na_action="ignore")
        return deals.assign(amount=texts.where(deals.index % 2 == 0), product_line="core", competitor=None)

    changed(crm, here / "tables", deals=untidy)
    said = done("features", "tables", "out.parquet")
    line = said.out.splitlines()[-1]
    assert line.startswith("Left out, for they say nothing: ")
    assert "product_line (the same everywhere)" in line
    assert "competitor (all missing)" in line


def test_too_little_to_learn_from_is_refused_with_counts(here):
    done("simulate", "small", "--deals", "100")
    said = run("train", "small", "--out", "model")
    assert re.fullmatch(
        r"stepin: The evidence is not enough to advise on: \d+ decisions, \d+ won with the vendor, "
        r"\d+ lost with the vendor, \d+ won without, \d+ lost without; at least 40 of each are needed\. "
        r"Nothing was written\. Bring more past deals\.\n",
        said.err,
    )
    assert (said.status, said.out) == (1, "")
    assert {path.name for path in here.iterdir()} == {"small"}


# Models at fault


def remake_manifest(model: Path, **changes) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(manifest | changes))


DAMAGED = (
    "bad is a damaged model: {} is missing or was changed after it was written. "
    "Copy the model again from where it was made, or train again."
)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "scorecard.npz").unlink(), DAMAGED.format("scorecard.npz")),
        (lambda model: (model / "scorecard.json").write_text("{}"), DAMAGED.format("scorecard.json")),
        (lambda model: (model / "manifest.json").write_bytes(b"\xff["), DAMAGED.format("manifest.json")),
        (
            lambda model: remake_manifest(model, format=9),
            "bad is a model of format 9; this stepin reads up to 1. "
            "Upgrade stepin, or train the model again with this one.",
        ),
    ],
    ids=["a file gone", "a file changed", "no manifest", "a later format"],
)
@pytest.mark.parametrize("command", ["score bad CRM out.parquet", "serve bad --port 0"])
def test_a_model_at_fault_is_refused_in_one_sentence(command, damage, message, model, crm, here):
    shutil.copytree(model, "bad")
    damage(here / "bad")
    said = run(*command.replace("CRM", str(crm)).split())
    assert said.err == f"stepin: {message}\n"
    assert (said.status, said.out) == (1, "")
    assert not list(here.glob("*out*"))


# Scoring


def test_the_open_deals_of_a_folder_are_scored(model, crm, here):
    said = done("score", model, crm, "out.parquet", "--json")
    scored = pd.read_parquet("out.parquet")
    deals = pd.read_parquet(crm / "deals.parquet")
    assert set(scored["deal_id"]) <= set(deals.loc[deals["outcome"] == "open", "deal_id"])
    document = one_document(said.out)
    assert document["decisions"] == len(scored) > 0
    assert document["advice"] == scored["advice"].value_counts().to_dict()


def test_a_value_never_seen_in_training_is_scored(model, crm, here):
    changed(crm, here / "tables", deals=lambda deals: deals.assign(product_line="brand new"))
    done("score", model, "tables", "out.parquet")
    assert np.isfinite(pd.read_parquet("out.parquet")["uplift"]).all()


def test_a_folder_without_open_deals_has_nothing_to_score(model, crm, here):
    def closed(deals):
        is_open = deals["outcome"] == "open"
        return deals.assign(
            closed_at=deals["closed_at"].where(~is_open, deals["closed_at"].max()),
            outcome=deals["outcome"].where(~is_open, "lost"),
        )

    changed(crm, here / "tables", deals=closed)
    said = run("score", model, "tables", "out.parquet")
    assert said.err == "stepin: There is no decision to score: no deal is open. Nothing was written.\n"
    assert said.status == 1
    assert not list(here.glob("*out*"))


FLAT = """
[decision]
id = "deal"
partner = "reseller"
[stepped_in]
column = "helped"
yes = ["y"]
no = ["n"]
[outcome]
column = "result"
yes = ["won"]
no = ["lost"]
"""


def flat_table(n=1200):
    rng = np.random.default_rng(0)
    size, helped = rng.normal(size=n), rng.random(n) < 0.5
    return pd.DataFrame(
        {
            "deal": np.arange(n),
            "reseller": rng.integers(0, 40, n),
            "helped": np.where(helped, "y", "n"),
            "result": np.where(rng.random(n) < 0.4 + 0.1 * helped, "won", "lost"),
            "size": size.round(2),
            "code": rng.choice(["01", "2", "other"], n),
        }
    )


def test_names_of_which_no_two_are_the_same_are_left_out_and_said(here):
    table = flat_table().assign(note=lambda rows: "deal of " + rows["deal"].astype("str"), same="x")
    table.to_csv("past.csv", index=False)
    Path("columns.toml").write_text(FLAT)
    said = done(
        "train", "past.csv", "--columns", "columns.toml", "--out", "model", "--no-track", "--jobs", "1"
    )
    assert said.out.splitlines()[1] == (
        "Left out, for they say nothing: note (another one in every row), same (the same everywhere)"
    )


def test_a_code_that_looks_like_a_number_stays_the_level_it_was(here):
    table = flat_table()
    table.to_csv("past.csv", index=False)
    table[table["code"] != "other"].drop(columns=["helped", "result"]).to_csv("new.csv", index=False)
    Path("columns.toml").write_text(FLAT)
    done("train", "past.csv", "--columns", "columns.toml", "--out", "model", "--no-track", "--jobs", "1")
    done("score", "model", "past.csv", "past.parquet", "--columns", "columns.toml")
    done("score", "model", "new.csv", "new.parquet", "--columns", "columns.toml")
    past, new = (pd.read_parquet(f"{name}.parquet").set_index("deal_id") for name in ("past", "new"))
    assert len(new) > 500
    columns = ["win_if_step_back", "win_if_step_in", "uplift", "propensity"]
    pd.testing.assert_frame_equal(new[columns], past.loc[new.index, columns])


# One JSON document


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
    assert asked == {"demo", "simulate", "features", "train", "score", "promote", "rollback"}


def test_what_is_no_number_becomes_null_in_json():
    text = stepin_console.as_one_document({"a": float("nan"), "b": [float("inf"), (1.5,)], "c": Path("x")})
    assert one_document(text) == {"a": None, "b": [None, [1.5]], "c": "x"}


def test_the_demo_says_one_json_document_and_ends(here, monkeypatch):
    monkeypatch.setattr(stepin_demo, "_stepin", lambda _console, *line: done(*line))
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
    with stepin_demo.serving(str(model)) as (url, server):
        assert timers[0].finished.is_set()
        assert server.poll() is None
        with urllib.request.urlopen(f"{url}/healthz", timeout=20) as reply:
            assert reply.status == 200
    assert server.returncode == 0


# Stopped, or failed late


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


# Other people's tables


@pytest.fixture
def others():
    if not DATA.is_dir():
        pytest.skip(f"the public tables are not in {DATA}")
    return DATA


def test_the_ibm_table_is_learned_from_and_served(others, here):
    table = pd.read_csv(others / "ibm_win_loss" / "sales_win_loss.csv.gz", dtype="str", keep_default_na=False)
    table.sample(12_000, random_state=0).to_csv("sales.csv.gz", index=False)
    columns = ROOT / "examples" / "ibm_win_loss.toml"
    said = done("train", "sales.csv.gz", "--columns", columns, "--out", "ibm", "--no-track", "--json")
    facts = one_document(said.out)["facts"]
    assert facts["learned_from"]["partners"] is None
    assert 10_000 < facts["learned_from"]["decisions"] < 12_000
    assert facts["learned_from"]["held_out"]["decisions"] > 5_000
    server = subprocess.Popen(
        [*STEPIN, "serve", "ibm", "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        url = re.search(r"http://\S+?:\d+", server.stderr.readline()).group(0)
        body = {"deal_id": "1", "features": {"Region": "Midwest", "Opportunity Amount USD": 50000}}
        request = urllib.request.Request(
            f"{url}/v1/recommendations", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            answer = json.load(reply)
    finally:
        server.terminate()
        server.communicate(timeout=20)
    parts = answer["baseline_points"] + sum(r["points"] for r in answer["reasons"]) + answer["other_points"]
    assert parts == pytest.approx(answer["uplift_points"], abs=1e-6)
    assert server.returncode == 0


def test_the_salvirt_table_is_too_little(others, here):
    source = others / "salvirt" / "Salvirt_B2B_ML_dataset.csv"
    said = run("train", source, "--columns", ROOT / "examples" / "salvirt.toml", "--out", "model")
    assert said.err.splitlines()[-1] == (
        "stepin: The evidence is not enough to advise on: 448 decisions, 191 won with the vendor, "
        "204 lost with the vendor, 36 won without, 17 lost without; at least 40 of each are needed. "
        "Nothing was written. Bring more past deals."
    )
    assert (said.status, said.out) == (1, "")
    assert everything_in(here) == []
