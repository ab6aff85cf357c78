"""How often true nulls are rejected, measured: ``benchmarks/size.py`` prints the whole table."""

import importlib.util
from pathlib import Path

import pytest

from training.few_clusters import Correction

SOURCE = Path(__file__).parents[2] / "benchmarks" / "size.py"
FIGURES = ("average", "slope", "gain over never", "AUTOC", "Qini", "best linear predictor")


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("size_of_tests", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAYOUTS = (
    "20 partners x 50",
    "40 partners x 25",
    "40 partners, the largest 26%",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_true_nulls_are_rejected_about_as_often_as_promised(layout, bench):
    found = bench.size(bench.layouts()[layout], 1000, only=FIGURES)
    assert set(found) == set(FIGURES)
    assert all(0.02 <= share <= 0.08 for share in found.values()), found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ignoring_partners_rejects_true_nulls_far_too_often(layout, bench):
    assert bench.size(bench.layouts()[layout], 200, only=("row-wise average",))["row-wise average"] > 0.22


def test_without_its_correction_a_few_large_partners_make_the_test_reject_too_often(bench, monkeypatch):
    monkeypatch.setattr("training.clustered.correction", lambda *_: Correction(1.0, 1e6))
    found = bench.size(bench.layouts()[LAYOUTS[2]], 200, only=("average", "slope"))
    assert all(share > 0.09 for share in found.values()), found
