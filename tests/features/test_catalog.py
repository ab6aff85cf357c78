"""The words for each feature, and the lightness that the server counts on."""

import subprocess
import sys
from pathlib import Path

import pytest

from features import catalog

ROOT = Path(__file__).resolve().parents[2]


def test_names_are_unique_and_every_feature_has_words():
    assert len(set(catalog.names())) == len(catalog.CATALOG) == 41
    for feature in catalog.CATALOG:
        assert feature.meaning.endswith("."), feature.name
        assert feature.label, feature.name
        assert feature.label[0].isupper(), feature.name


def test_numbers_have_a_unit_and_booleans_both_phrases():
    for feature in catalog.CATALOG:
        assert bool(feature.unit) == (feature.kind == "number"), feature.name
        if feature.kind == "boolean":
            assert set(feature.phrases) == {"true", "false"}, feature.name


def test_what_may_be_missing_has_words_for_it():
    never_missing = {"already_involved", "vendor_active_now", "pair_first_sale"}
    for feature in catalog.CATALOG:
        assert bool(feature.missing_phrase) == (feature.name not in never_missing), feature.name


@pytest.mark.parametrize(
    ("name", "group", "label"),
    [
        ("deal_complexity", "deal", "Deal complexity"),
        ("Client Size By Revenue", "other", "Client Size By Revenue"),
        ("partner", "other", "Partner"),
    ],
)
def test_a_users_own_column_gets_plain_words(name, group, label):
    feature = catalog.feature(name)
    assert (feature.name, feature.group, feature.label) == (name, group, label)
    assert feature.missing_phrase == f"{label}: not on record"


def test_a_known_feature_is_found_by_its_name():
    assert catalog.feature("pair_first_sale").phrases["true"] == "First sale of this partner to this customer"


def test_importing_the_catalog_brings_nothing_heavy():
    code = (
        "import sys, features.catalog, features.problems\n"
        "heavy = {'numpy', 'pandas', 'pandera', 'pyarrow', 'sklearn', 'scipy', 'mlflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("floor", ["features", "training", "serving"])
def test_the_floors_are_ours_and_no_strangers(floor):
    module = __import__(floor)
    assert Path(module.__file__).resolve() == ROOT / floor / "__init__.py"
