"""A simulated CRM, a model that learned from it, and a working folder of one's own."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from command_line import done

import training.config


@dataclass(frozen=True)
class QuickConfig(training.config.TrainingConfig):
    """Learns as the real one does, with less patience."""

    n_folds: int = 2
    draws: int = 30
    most_pairs: int = 1


@pytest.fixture(scope="package")
def store(tmp_path_factory):
    """Where the models of these tests are registered."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@contextmanager
def quick(store):
    """Let commands learn quickly, and register in `store`; the next package finds all as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.config, "TrainingConfig", QuickConfig)
        patch.setenv("MLFLOW_TRACKING_URI", store)
        yield


@pytest.fixture(scope="module", autouse=True)
def quickly(store):
    with quick(store):
        yield


@pytest.fixture(scope="package")
def crm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crm") / "tables"
    done("simulate", folder, "--deals", "1500", "--seed", "1")
    return folder


@pytest.fixture(scope="package")
def learned(crm, store, tmp_path_factory):
    """What `stepin train --json --register` says, and the model folder."""
    folder = tmp_path_factory.mktemp("models") / "model"
    with quick(store):
        said = done("train", crm, "--out", folder, "--register", "spring", "--jobs", "1", "--json")
    return folder, said


@pytest.fixture(scope="package")
def model(learned):
    return learned[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder of one's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
