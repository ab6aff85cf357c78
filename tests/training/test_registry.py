import logging
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from features.problems import UserError
from training import model_folder, registry
from training.uplift import UpliftModel


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('a store') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_world):
    world = make_world(400, seed=0)
    with threadpool_limits(limits=1):  # threads of so small a fit mostly wait for each other
        model = UpliftModel(random_state=0, n_jobs=1).fit(
            world.X, world.treatment, world.outcome, world.partner
        )
    place = tmp_path_factory.mktemp("models") / "my model"
    model.save(place)
    return place


def log(folder, store, name="steps", **more):
    return registry.log_run(
        "partner deals",
        {"horizon_days": 180, "seed": 0},
        {"average": 0.023},
        {"data_digest": "sha256:" + 64 * "a"},
        folder,
        register_as=name,
        tracking_uri=store,
        **more,
    )


@pytest.fixture(scope="module")
def first(folder, store):
    return log(folder, store)


def in_a_process_of_its_own(code, cwd, **environ):
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DO_NOT", "CI"))
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=clean | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_keeps_parameters_metrics_and_the_data_digest(first, store):
    import mlflow

    kept = mlflow.MlflowClient(store).get_run(first.run_id)
    assert kept.data.params == {"horizon_days": "180", "seed": "0"}
    assert kept.data.metrics == {"average": 0.023}
    assert kept.data.tags["data_digest"] == "sha256:" + 64 * "a"
    assert kept.inputs.dataset_inputs[0].dataset.digest == 36 * "a"


def test_a_registered_model_is_found_again_whole(first, folder, store):
    found = registry.locate("models:/steps@champion", store)
    assert (found.name, found.version) == ("steps", 1)
    assert model_folder.verify(found.folder) == model_folder.verify(folder)
    assert registry.resolve("models:/steps/1", store) == found.folder


def test_a_version_is_named_without_being_fetched_and_fetched_to_where_it_should_be(
    first, folder, store, tmp_path
):
    by_alias, by_number = (registry.look_up(f"models:/steps{end}", store) for end in ("@champion", "/1"))
    assert by_alias == by_number
    assert (by_alias.name, by_alias.version) == ("steps", 1)
    found = registry.locate("models:/steps@champion", store, into=tmp_path)
    assert found.folder.is_relative_to(tmp_path)
    assert model_folder.verify(found.folder) == model_folder.verify(folder)


def test_mlflow_alone_can_answer_with_it(first, folder, store, make_world):
    import mlflow

    X = make_world(20, seed=1).X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, in the caller's hands
        mlflow.set_tracking_uri(store)
        answers = mlflow.pyfunc.load_model("models:/steps@champion").predict(X)
        mlflow.set_tracking_uri(None)
    model = UpliftModel.load(folder)
    assert isinstance(answers, pd.DataFrame)
    assert np.allclose(answers["uplift"], model.predict(X))
    assert np.allclose(answers[["lo", "hi"]], model.predict_interval(X))
    assert answers["supported"].tolist() == model.support(X).tolist()


def test_the_logged_model_holds_no_pickle(first, store):
    inside = registry.resolve("models:/steps/1", store).parent.parent
    names = [path.name for path in inside.rglob("*") if path.is_file()]
    assert {"MLmodel", "mlflow_entry.py", "scorecard.npz"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]


def test_the_champion_moves_only_when_asked_and_can_be_given_back(folder, store):
    champion, challenger = "models:/ladder@champion", "models:/ladder@challenger"
    assert [log(folder, store, "ladder").version for _ in range(3)] == [1, 2, 3]
    assert registry.locate(champion, store).version == 1
    assert registry.locate(challenger, store).version == 3
    assert registry.promote("ladder", 2, store) == 1
    assert registry.promote("ladder", 3, store) == 2
    assert registry.promote("ladder", 3, store) == 3
    assert registry.locate("models:/ladder@previous", store).version == 2
    assert [registry.rollback("ladder", store), registry.rollback("ladder", store)] == [2, 1]
    assert registry.locate(champion, store).version == 1
    with pytest.raises(registry.RegistryError, match=r"^'ladder' has had no champion before version 1\.$"):
        registry.rollback("ladder", store)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda store: registry.resolve("models:/steps", store),
            "'models:/steps' is no model address; expected models:/NAME@ALIAS or models:/NAME/VERSION.",
        ),
        (
            lambda store: registry.resolve("models:/steps/7", store),
            "No version 7 of model 'steps'. Versions of 'steps': 1.",
        ),
        (
            lambda store: registry.resolve("models:/steps@best", store),
            "No model 'steps' with the alias 'best'. Versions of 'steps': 1.",
        ),
        (
            lambda store: registry.promote("nobody", 1, store),
            "No version 1 of model 'nobody'. Registered models: ",
        ),
        (
            lambda store: registry.rollback("nobody", store),
            "No model 'nobody' with the alias 'champion'. Registered models: ",
        ),
    ],
)
def test_what_is_not_there_is_named(ask, message, first, store):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        ask(store)


@pytest.mark.parametrize("name", ["", "a/b", "a@b", "it's", "models:/x"])
def test_a_name_that_could_never_be_found_again_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"^'{name}' is no model name; use letters, "):
        log(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", name)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_refuses_is_one_sentence_without_the_password(folder):
    with pytest.raises(registry.RegistryError) as caught:
        registry.resolve("models:/steps/1", "mysterious://me:secret@nowhere")
    assert str(caught.value).startswith("MLflow's store mysterious://nowhere refused: ")
    assert "secret" not in str(caught.value)


def test_the_users_own_store_and_loggers_are_left_as_they_were(folder, store, monkeypatch, first):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    level = logging.getLogger("mlflow").level
    registry.resolve("models:/steps/1", store)
    assert mlflow.get_tracking_uri() == "sqlite:///elsewhere.db"
    assert logging.getLogger("mlflow").level == level


def test_by_default_the_store_is_sqlite_in_the_working_folder_and_silent(folder, tmp_path):
    code = (
        "import os\nfrom training import registry\n"
        f"run = registry.log_run('x', {{'a': 1}}, {{'b': 2.0}}, {{}}, {str(folder)!r}, 'steps')\n"
        "print(run.version, os.environ['MLFLOW_DISABLE_TELEMETRY'], 'MLFLOW_TRACKING_URI' in os.environ)\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\nprint(is_telemetry_disabled())"
    )
    done = in_a_process_of_its_own(code, tmp_path, PYTHONWARNINGS="error")
    assert (done.stdout, done.stderr) == ("1 true False\nTrue\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlruns"}


def test_importing_the_registry_imports_no_mlflow(tmp_path):
    done = in_a_process_of_its_own(
        "import sys, os; before = dict(os.environ); import training.registry\n"
        "print('mlflow' in sys.modules, before == dict(os.environ))",
        tmp_path,
    )
    assert done.stdout == "False True\n"
