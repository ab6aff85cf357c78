"""Help, wrong usage, and what is refused before any work: one sentence, nothing written."""

import gzip
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import everything_in, run

import stepin

COMMANDS = sorted(stepin.cli.commands)
HEAVY = ("numpy", "pandas", "pyarrow", "sklearn", "scipy", "mlflow", "fastapi", "rich")


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
        "random.csv is no text in utf-8 (line 1); export it as CSV in that encoding.",
    ),
    (
        "train damaged.csv.gz --columns mine.toml",
        "damaged.csv.gz is cut off before its end; copy or export it again.",
    ),
    (
        "train other.parquet",
        "other.parquet is not a decision table; write one with 'stepin features', "
        "or say what its columns mean with --columns.",
    ),
    ("train cut.parquet", f"cut.parquet cannot be read as a decision table: {NO_PARQUET}"),
    (
        "train cut.parquet --columns mine.toml",
        "cut.parquet is cut off before its end; copy or export it again.",
    ),
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
    (
        "features CRM CRM/deals.parquet",
        "CRM/deals.parquet would be one of the tables of CRM itself; name another file.",
    ),
    (
        "score MODEL CRM CRM/truth.parquet",
        "CRM/truth.parquet would be one of the tables of CRM itself; name another file.",
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
