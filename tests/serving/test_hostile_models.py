"""Model folders made to hurt, each sealed anew with right digests: refused, quickly, in a sentence."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from features.problems import UserError
from serving.held import prepare
from serving.settings import Settings

SECONDS = 5.0
MOST_MIB = 300


def seal(folder, **files):
    """Write a manifest with right digests, as whoever reads the format can."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names} | files
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    whole = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    manifest = {"format": 1, "digest": whole, "files": digests}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path, model):
    place = tmp_path / "m"
    shutil.copytree(model, place)
    return place


def refusal(folder):
    start = time.monotonic()
    with pytest.raises(UserError) as refused:
        prepare(Settings(folder))
    assert time.monotonic() - start < SECONDS
    sentence = str(refused.value).replace(str(folder), "M")
    assert len(sentence) < 400
    assert sentence.isprintable()
    return sentence


def test_sealed_anew_and_otherwise_as_it_was_it_is_served(folder):
    seal(folder)
    assert prepare(Settings(folder)).model.name_tag["name"] == "winter"


# The manifest and the files

SECRET = hashlib.sha256(b"secret").hexdigest()


def named(name):
    return lambda folder: seal(folder, **{name: SECRET})


def linked(name, target):
    def plant(folder):
        (folder / name).unlink(missing_ok=True)
        (folder.parent / "secret").write_bytes(b"secret")
        (folder / name).symlink_to(target)
        seal(folder)

    return plant


def further(name):
    def plant(folder):
        seal(folder)
        (folder / name).write_text("x")

    return plant


def manifest(content):
    return lambda folder: (folder / "manifest.json").write_bytes(content)


def a_pipe(folder):
    seal(folder)
    (folder / "report.html").unlink()
    os.mkfifo(folder / "report.html")


def a_folder_within(folder):
    seal(folder, **{"report.html": SECRET})
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()


NO_MODEL = (
    "M is no model as stepin writes them: {}. Copy the model again from where it was made, or train again."
)
DAMAGED = (
    "M is a damaged model: {} is missing or was changed after it was written. "
    "Copy the model again from where it was made, or train again."
)
ODD_NAME = NO_MODEL.format("its manifest names a file that no model has")


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (named("../secret"), ODD_NAME),
        (named("/etc/passwd"), ODD_NAME),
        (named("..\\secret"), ODD_NAME),
        (named("."), ODD_NAME),
        (named(""), ODD_NAME),
        (named("report\u202elmth.exe"), ODD_NAME),
        (named("sсorecard.npz"), ODD_NAME),  # its second letter is Cyrillic
        (named("scorecard.npz\n"), ODD_NAME),
        (named("x" * 5000), ODD_NAME),
        (named("manifest.json"), ODD_NAME),
        (named(".hidden"), ODD_NAME),
        (named("gone.html"), DAMAGED.format("gone.html")),
        (linked("report.html", "../secret"), DAMAGED.format("report.html")),
        (linked("scorecard.npz", "/dev/zero"), None),
        (a_pipe, DAMAGED.format("report.html")),
        (a_folder_within, DAMAGED.format("report.html")),
        (further("more.py"), NO_MODEL.format("it holds 'more.py', which its manifest does not name")),
        (further("a\u202eb\n"), NO_MODEL.format("it holds 'a?b?', which its manifest does not name")),
        (further(".hidden"), NO_MODEL.format("it holds '.hidden', which its manifest does not name")),
        (manifest(b"[]"), DAMAGED.format("manifest.json")),
        (manifest(b"[" * 60000), DAMAGED.format("manifest.json")),
        (manifest(b" " * 10**6), DAMAGED.format("manifest.json")),
        (manifest(b'{"format": true, "files": {}, "digest": ""}'), DAMAGED.format("manifest.json")),
        (manifest(b'{"format": 1, "files": {"a": 3}, "digest": ""}'), DAMAGED.format("manifest.json")),
        (manifest(b'{"format": 1, "files": ["a"], "digest": ""}'), DAMAGED.format("manifest.json")),
        (manifest(b'{"format": 1e999, "files": {}, "digest": ""}'), DAMAGED.format("manifest.json")),
    ],
)
def test_paths_links_and_files_that_no_model_has_are_refused(folder, plant, sentence):
    if sentence is None:  # its digest cannot be computed: it has no end
        seal(folder)
        (folder / "scorecard.npz").unlink()
        (folder / "scorecard.npz").symlink_to("/dev/zero")
        sentence = DAMAGED.format("scorecard.npz")
    else:
        plant(folder)
    assert refusal(folder) == sentence


def test_a_manifest_that_is_a_link_is_none(folder):
    (folder / "manifest.json").rename(folder.parent / "manifest.json")
    (folder / "manifest.json").symlink_to("../manifest.json")
    assert refusal(folder).startswith("M is no stepin model (it has no manifest.json).")


@pytest.mark.parametrize(
    ("name", "size", "limit"), [("report.html", 33 * 2**20, "32"), ("held_out.parquet", 2**30 + 1, "1,024")]
)
def test_a_file_larger_than_a_models_can_be_is_refused_unread(folder, name, size, limit):
    (folder / name).write_bytes(b"")
    seal(folder)
    os.truncate(folder / name, size)
    assert refusal(folder) == NO_MODEL.format(f"its {name} is larger than {limit} MiB")


# The arrays


def stored(folder):
    with np.load(folder / "scorecard.npz") as npz:
        return dict(npz)


def unreadable(word):
    return (
        f"M is no readable stepin model ({word} in its scorecard); "
        "copy it again from where it was made, or train again."
    )


def one_at(name, place, value):
    def plant(arrays):
        changed = arrays[name].copy()
        changed[place] = value
        return {name: changed}

    return plant


def of(name, make):
    return lambda arrays: {name: make(arrays[name])}


@pytest.mark.parametrize(
    ("plant", "word"),
    [
        (one_at("effect_0", (0, 0), np.nan), "effect"),
        (one_at("effect_0", (0, 5), np.inf), "effect"),
        (one_at("effect_3", (0, 0), 1e300), "effect"),
        (one_at("baseline", 0, np.nan), "baseline"),
        (one_at("low_0", (0, 0), np.nan), "low"),
        (one_at("pair_0", (0, 0, 0), -np.inf), "pair"),
        (one_at("doubt_1", 0, np.nan), "doubt"),
        (one_at("doubt_1", 0, -1.0), "doubt"),
        (one_at("outcome_2", 0, np.inf), "outcome"),
        (one_at("propensity_2", 0, np.nan), "propensity"),
        (one_at("cells", (0, 0), -5), "cells"),
        (one_at("cells", (0, 0), 2**62), "cells"),
        (of("cells", lambda table: table.astype(float)), "cells"),
        (of("cells", lambda table: table[:-1]), "cells"),
        (of("effect_0", lambda table: table[:-1]), "effect"),
        (of("effect_0", lambda table: table[:, :-1]), "effect"),
        (of("effect_0", lambda table: table.ravel()), "effect"),
        (of("effect_0", lambda table: table.astype(int)), "effect"),
        (of("effect_0", lambda table: table.astype(complex)), "ValueError"),
        (of("effect_0", lambda table: table.astype(str)), "ValueError"),
        (of("effect_0", lambda table: table.astype(">f8")), "ValueError"),
        (of("effect_0", lambda table: table.astype("f2")), "ValueError"),
        (of("effect_0", lambda table: np.zeros(len(table), [("a", "f8")])), "ValueError"),
        (of("low_3", lambda table: np.zeros((len(table), 40))), "low"),
        (of("pair_0", lambda table: table[:, :, :-1]), "pair"),
        (of("baseline", lambda table: table[:1]), "baseline"),
        (of("baseline", lambda table: table.reshape(1, -1)), "baseline"),
        (of("baseline", lambda table: np.zeros(())), "baseline"),
        (lambda arrays: {"further": np.zeros(3)}, "ValueError"),
        (lambda arrays: {"effect_0": np.zeros((1, 1, 1, 1, 1, 1, 1))}, "ValueError"),
    ],
)
def test_arrays_that_no_model_has_are_refused(folder, plant, word):
    arrays = stored(folder)
    np.savez_compressed(folder / "scorecard.npz", **(arrays | plant(arrays)))
    seal(folder)
    assert refusal(folder) == unreadable(word)


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_is_never_opened(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    arrays = stored(folder)
    arrays["effect_0"] = np.array([Bomb()], dtype=object)
    np.savez(folder / "scorecard.npz", **arrays)
    seal(folder)
    assert refusal(folder) == unreadable("ValueError")
    (folder / "scorecard.npz").write_bytes(pickle.dumps(Bomb()))
    seal(folder)
    assert refusal(folder) == unreadable("ValueError")
    assert not Path("exploded").exists()


def header(dtype="'<f8'", shape="(3,)"):
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


def with_member(content, name="baseline.npy", **more):
    """The arrays, one of them as these bytes."""

    def plant(folder):
        target = folder / "scorecard.npz"
        with zipfile.ZipFile(target) as before:
            kept = {info.filename: before.read(info) for info in before.infolist() if info.filename != name}
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, **more) as after:
            for each, data in kept.items():
                after.writestr(each, data)
            with after.open(name, "w", force_zip64=False) as file:
                for part in [content] if isinstance(content, bytes) else content:
                    file.write(part)

    return plant


@pytest.mark.parametrize(
    "content",
    [
        header(shape="(999999999999,)") + bytes(24),
        header(shape="(999999999999, 999999999999)") + bytes(24),
        header(shape="(-3,)") + bytes(24),
        header(shape="(4,)") + bytes(24),
        header(shape="(2,)") + bytes(24),
        header(dtype="'|O'"),
        header(shape="(" * 300 + ")" * 300) + bytes(24),
        header(shape="(3,)" + 2000 * " ") + bytes(24),
        header(dtype="__import__('os').mkdir('exploded')") + bytes(24),
        b"\x93NUMPY\x02\x00" + bytes(60),
        b"\x93NUMPY\x01\x00\xff\xff" + bytes(60),
        b"",
        b"not an array",
    ],
)
def test_headers_that_lie_are_refused(folder, content):
    with_member(content)(folder)
    seal(folder)
    assert refusal(folder) == unreadable("ValueError")


def test_a_member_that_stands_there_twice_is_refused(folder):
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(folder / "scorecard.npz", "a") as file,
    ):
        file.writestr("baseline.npy", header() + bytes(24))
    seal(folder)
    assert refusal(folder) == unreadable("ValueError")


def test_a_member_whose_name_climbs_is_refused(folder):
    with zipfile.ZipFile(folder / "scorecard.npz", "a") as file:
        file.writestr("../../effect_99.npy", header() + bytes(24))
    seal(folder)
    assert refusal(folder) == unreadable("ValueError")


def test_a_zip_that_is_damaged_inside_is_refused(folder):
    content = bytearray((folder / "scorecard.npz").read_bytes())
    for place in range(200, len(content) // 2, 997):
        content[place] ^= 0xFF
    (folder / "scorecard.npz").write_bytes(content)
    seal(folder)
    assert refusal(folder).startswith("M is no readable stepin model (")


# The description


def described(**changes):
    def plant(about):
        return about | changes

    return plant


def feature(place, **changes):
    def plant(about):
        about["features"][place] |= changes
        return about

    return plant


N_FEATURES = 14


@pytest.mark.parametrize(
    ("plant", "word"),
    [
        (described(pairs=[[-1, 0]]), "pair"),
        (described(pairs=[[0, N_FEATURES]]), "pair"),
        (described(pairs=[[0, 10**15]]), "pair"),
        (described(pairs=[[0, 0]]), "pair"),
        (described(pairs=[[0, 1.0]]), "index"),
        (described(pairs=[["0", 1]]), "index"),
        (described(pairs=[[0, 1, 2]]), "ValueError"),
        (described(pairs=[]), "ValueError"),
        (described(cell_features=[-1]), "cells"),
        (described(cell_features=[N_FEATURES]), "cells"),
        (described(cell_features=[2, 2]), "cells"),
        (described(cell_features=[True]), "index"),
        (described(one_way=[[0, -1]]), "one_way"),
        (described(one_way=[[-1, 0]]), "one_way"),
        (described(one_way=[[0, 10**6]]), "one_way"),
        (described(one_way=[[2, 0], [2, 0]]), "one_way"),
        (described(features=[]), "features"),
        (described(features={}), "features"),
        (described(features="x" * 14), "TypeError"),
        (described(binary=1), "truth"),
        (described(heterogeneous="false"), "truth"),
        (described(misfit_variance=-1.0), "misfit_variance"),
        (described(misfit_variance="0"), "number"),
        (described(outcome_intercept=1e300), "constants"),
        (described(propensity_intercept=None), "number"),
        (described(importance=[]), "importance"),
        (described(importance=[-1e300] * 15), "importance"),
        (described(support={"least_propensity": 2.0, "least_in_cell": 1}), "support"),
        (described(support={"least_propensity": 0.1, "least_in_cell": -1}), "support"),
        (described(support=[]), "TypeError"),
        (described(format="1"), "TypeError"),
        (feature(0, name="x" * 5000), "name"),
        (feature(0, name=""), "name"),
        (feature(0, name="stage"), "names"),
        (feature(0, name=7), "texts"),
        (feature(0, kind="object"), "kind"),
        (feature(0, knots=[]), "knots"),
        (feature(0, knots=[3.0, 2.0, 1.0, 0.0, -1.0]), "knots"),
        (feature(0, knots=[0.0, 0.0, 1.0, 2.0, 3.0]), "knots"),
        (feature(0, knots=[-1.7e308, 1.7e308, 1.71e308, 1.72e308, 1.73e308]), "knots"),
        (feature(0, knots=["0", 1, 2, 3, 4]), "number"),
        (feature(0, knots=5), "knots"),
        (feature(0, levels=["a"]), "knots"),
        (feature(0, had_missing="no"), "truth"),
        (feature(2, levels=["a", "a", "b"]), "levels"),
        (feature(2, levels=["x" * 20000, "a", "b"]), "levels"),
        (feature(2, levels=[1, 2, 3]), "texts"),
        (feature(2, levels=[f"{i}" for i in range(100001)]), "levels"),
        (feature(4, levels=["no", "yes"]), "levels"),
    ],
)
def test_descriptions_that_no_model_has_are_refused(folder, plant, word):
    about = plant(json.loads((folder / "scorecard.json").read_text()))
    (folder / "scorecard.json").write_text(json.dumps(about))
    seal(folder)
    assert refusal(folder) == unreadable(word)


def test_too_many_features_are_refused(folder):
    about = json.loads((folder / "scorecard.json").read_text())
    about["features"] = [about["features"][4] | {"name": f"f{i}"} for i in range(2001)]
    (folder / "scorecard.json").write_text(json.dumps(about))
    seal(folder)
    assert refusal(folder) == unreadable("features")


@pytest.mark.parametrize(
    "text",
    [
        '{"misfit_variance": NaN}',
        '{"misfit_variance": 1e999}',
        '{"misfit_variance": ' + "9" * 5000 + "}",
        '{"format": 1, "format": 1}',
        '{"features": "\\ud800"}',
        "[" * 100000,
        '{"features": ' + "[" * 40 + "]" * 40 + "}",
        "",
        "\ufeff{}",
    ],
)
@pytest.mark.parametrize("name", ["scorecard.json", "facts.json"])
def test_json_that_is_none_or_absurd_is_refused(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    seal(folder)
    assert refusal(folder) == (DAMAGED.format(name) if name == "facts.json" else unreadable("ValueError"))


# The facts

NAME = "a text of at most 200 characters without control characters"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"name": "x" * 5000}, f"'name' in its facts.json should be {NAME}"),
        ({"name": ["winter"]}, f"'name' in its facts.json should be {NAME}"),
        ({"name": "\x1b[2Jwinter"}, f"'name' in its facts.json should be {NAME}"),
        ({"name": "winter\u202eretniw"}, f"'name' in its facts.json should be {NAME}"),
        ({"version": {"a": 1}}, f"'version' in its facts.json should be {NAME}"),
        ({"version": True}, f"'version' in its facts.json should be {NAME}"),
        ({"trained_at": 2025}, f"'trained_at' in its facts.json should be {NAME}"),
        ({"currency": "EUR\n"}, f"'currency' in its facts.json should be {NAME}"),
        ({"stage_order": "qualify"}, "'stage_order' in its facts.json should be a list of at most 200 "),
        ({"stage_order": [1, 2]}, "'stage_order' in its facts.json should be a list of at most 200 "),
        ({"stage_order": ["a", "a"]}, "'stage_order' in its facts.json should be a list of at most 200 "),
        ({"stage_order": [f"{i}" for i in range(9999)]}, "'stage_order' in its facts.json should be a list "),
        ({"amount_feature": {}}, "'amount_feature' in its facts.json should be the name of a feature"),
        ({"bias_per_unit_strength": "1"}, "'bias_per_unit_strength' in its facts.json should be a number "),
        ({"bias_per_unit_strength": -1}, "'bias_per_unit_strength' in its facts.json should be a number "),
        ({"evaluation": []}, "'evaluation' in its facts.json should be an object"),
        ({"learned_from": "x"}, "'learned_from' in its facts.json should be an object"),
        ({"doubts": 1}, "'doubts' in its facts.json should be an object"),
        ({"policy": []}, "'policy' in its facts.json should be an object of numbers and short texts"),
        ({"policy": {"hours": {}}}, "'policy' in its facts.json should be an object of numbers and short "),
        ({"policy": {"x" * 5000: 1}}, "'policy' in its facts.json should be an object of numbers and short "),
    ],
)
def test_facts_that_would_fail_later_are_refused_at_once(folder, made, facts, sentence):
    (folder / "facts.json").write_text(json.dumps(made.facts | facts))
    seal(folder)
    assert refusal(folder).startswith(f"M is no model as stepin writes them: {sentence}")


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"hours": "12"}, "hours should be between 0 and 1e+06; came '12'."),
        ({"break_even_points": None}, "break_even_points should be between -100 and 100; came None."),
        ({"sure": True}, "sure should be between 0.5 and 1; came True."),
        ({"evil": 1}, "Unknown policy setting evil. Known: break_even_points, "),
        ({f"evil{i}" * 20: 1 for i in range(50)}, " and 45 more. Known: "),
        ({"outcome": "numeric"}, "The policy of the model in M is for a numeric outcome"),
    ],
)
def test_a_policy_that_no_model_has_is_refused(folder, made, policy, sentence):
    (folder / "facts.json").write_text(json.dumps(made.facts | {"policy": policy}))
    seal(folder)
    assert sentence in refusal(folder)


def test_facts_that_are_not_an_object_are_refused(folder):
    (folder / "facts.json").write_text("[]")
    seal(folder)
    assert refusal(folder) == DAMAGED.format("facts.json")


# Too much of it: in a process of its own, whose memory is looked at


def _zeros(n_mib):
    yield header(shape=f"({n_mib * 2**17},)")
    for _ in range(n_mib):
        yield bytes(2**20)


def a_zip_bomb(folder):
    with_member(_zeros(600))(folder)


def a_large_array_within_the_limit(folder):
    with_member(_zeros(200))(folder)


def bombs_within_the_limit(folder):
    """Each one is allowed, all of them are not."""
    for name in ("effect_0.npy", "effect_1.npy", "effect_2.npy"):
        with_member(_zeros(128), name)(folder)


def a_bomb_that_says_it_is_small(folder):
    with_member(_zeros(600))(folder)
    content = (folder / "scorecard.npz").read_bytes()
    real, said = (600 * 2**20 + len(header(shape=f"({600 * 2**17},)"))), 2**20
    content = content.replace(real.to_bytes(4, "little"), said.to_bytes(4, "little"))
    (folder / "scorecard.npz").write_bytes(content)


def a_directory_of_a_million_names(folder):
    entry = io.BytesIO()
    with zipfile.ZipFile(entry, "w") as file:
        file.writestr("a", b"")
    content = entry.getvalue()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    listed = content[start:end] * 1_000_000
    tail = bytearray(content[end:])
    tail[12:16] = len(listed).to_bytes(4, "little")
    (folder / "scorecard.npz").write_bytes(content[:start] + listed + tail)


def a_long_description(folder):
    (folder / "scorecard.json").write_text('{"features": [' + "[]," * 3_000_000 + "[]]}")


def long_facts(folder):
    (folder / "facts.json").write_text('{"doubts": [' + "{}," * 3_000_000 + "{}]}")


def many_small_things_in_the_facts(folder):
    (folder / "facts.json").write_text('{"doubts": [' + "[]," * 1_300_000 + "[]]}")


HEAVY = (
    a_zip_bomb,
    a_large_array_within_the_limit,
    bombs_within_the_limit,
    a_bomb_that_says_it_is_small,
    a_directory_of_a_million_names,
    a_long_description,
    long_facts,
    many_small_things_in_the_facts,
)
LOAD = """
import json, resource, sys, time
from pathlib import Path
from features.problems import UserError
from serving.held import prepare
from serving.settings import Settings
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
try:
    prepare(Settings(Path(sys.argv[1])))
    said = None
except UserError as error:
    said = str(error)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([said, grown / 1024, time.monotonic() - start]))
"""


@pytest.mark.parametrize("plant", HEAVY)
def test_too_much_is_refused_within_bounded_memory(folder, plant):
    plant(folder)
    seal(folder)
    ran = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    said, mib, seconds = json.loads(ran.stdout)
    assert said.startswith(str(folder))
    assert mib < MOST_MIB
    assert seconds < SECONDS
