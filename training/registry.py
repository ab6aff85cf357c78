"""Experiments, runs and registered models: the only file that imports MLflow, but for what MLflow runs.

MLflow is imported inside the functions (it takes seconds), with its telemetry switched off and its chatter
kept down. The store is ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` (SQLite) in the working folder with the
artifacts in ``mlruns`` beside it.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from features.problems import UserError

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
_FORMER_TAG = "stepin.former_champion"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
# Said by MLflow 3.17 of things that are meant: (message, category name).
_MEANT = (
    (r"[\s\S]*Add type hints to the `predict` method", UserWarning),
    (r"[\s\S]*An input example was not provided", UserWarning),
    (r"[\s\S]*Any type hint is inferred as AnyType", UserWarning),
    (r"[\s\S]*``noload`` loader strategy is deprecated", DeprecationWarning),
)


class RegistryError(UserError):
    """A model, version or store that the registry can't find or reach."""


@dataclass(frozen=True)
class Run:
    """A logged run."""

    run_id: str
    version: int | None
    """Version of the registered model; None where nothing was registered."""


@dataclass(frozen=True)
class Named:
    """What an address names at this moment; equal as long as it names the same version."""

    name: str
    version: int
    created_ms: int
    """When it was made, in ms since 1970: a number may be given again once its version was deleted."""


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, and the stepin model folder inside it."""

    name: str
    version: int
    folder: Path


def is_model_uri(text: str) -> bool:
    """Whether `text` names a registered model rather than a folder."""
    return text.startswith("models:")


def check_name(name: str) -> None:
    """Refuse a name under which no model can be registered, before anything is learned.

    Raises
    ------
    RegistryError
        Other signs than letters, digits, spaces and ``_ . -``.
    """
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise RegistryError(f"'{name}' is no model name; use letters, digits, spaces, '_', '.' and '-'.")


def log_run(
    experiment: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    model_folder: Path,
    register_as: str | None = None,
    tracking_uri: str | None = None,
) -> Run:
    """Record a run: parameters, metrics, tags, the report and the model folder.

    Parameters
    ----------
    experiment : its name; made where there is none
    params, metrics, tags : as MLflow shows them; the tag ``data_digest`` is shown as the run's data set too
    model_folder : a whole model folder; its ``report.html`` is logged with the run as well
    register_as : name under which the model is registered. The new version gets the alias ``challenger``,
        and ``champion`` too where there is none yet: only `promote` moves a champion.
    tracking_uri : the store; None for ``MLFLOW_TRACKING_URI`` or SQLite in the working folder

    Raises
    ------
    RegistryError
        The store can't be reached, or refuses; or `register_as` is no name, see `check_name`.
    """
    if register_as is not None:
        check_name(register_as)
    folder = Path(model_folder).resolve()
    with _mlflow(tracking_uri) as (mlflow, client):
        is_inside = mlflow.active_run() is not None
        with mlflow.start_run(experiment_id=_experiment(client, experiment), nested=is_inside) as run:
            mlflow.log_params(dict(params))
            mlflow.log_metrics({name: float(value) for name, value in metrics.items()})
            mlflow.set_tags(dict(tags))
            if "data_digest" in tags:
                mlflow.log_input(_data_set(mlflow, tags["data_digest"]), context="training")
            if (folder / "report.html").is_file():
                mlflow.log_artifact(str(folder / "report.html"))
            model = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("mlflow_entry.py")),
                artifacts={"model_folder": str(folder)},
                pip_requirements=_requirements(),
                signature=_signature(),
            )
        if register_as is None:
            return Run(run.info.run_id, None)
        return Run(run.info.run_id, _register(client, register_as, run.info.run_id, model))


def look_up(uri: str, tracking_uri: str | None = None) -> Named:
    """Say which version ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names, without fetching it.

    Raises
    ------
    RegistryError
        As `locate`.
    """
    with _mlflow(tracking_uri) as (_, client):
        name, found = _find(client, uri)
        return Named(name, int(found.version), int(found.creation_timestamp))


def locate(uri: str, tracking_uri: str | None = None, into: Path | None = None) -> Registered:
    """Find the model folder of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, fetching it if need be.

    Parameters
    ----------
    uri, tracking_uri : the address, and the store as in `log_run`
    into : a folder that a copy is put into; None leaves the model where it is if that is on this machine

    Raises
    ------
    RegistryError
        Not such an address, no such model, alias or version, or not logged by stepin.
    """
    with _mlflow(tracking_uri) as (mlflow, client):
        name, found = _find(client, uri)
        address = f"models:/{name}/{found.version}"
        flavour = mlflow.models.get_model_info(address).flavors.get("python_function", {})
        inside = flavour.get("artifacts", {}).get("model_folder", {}).get("path")
        if inside is None:
            raise RegistryError(
                f"{address} holds no stepin model; register one with stepin train --register."
            )
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{address}/{inside}", dst_path=None if into is None else str(into)
        )
        return Registered(name, int(found.version), Path(path))


def resolve(uri: str, tracking_uri: str | None = None) -> Path:
    """Model folder of a registered model; see `locate`."""
    return locate(uri, tracking_uri).folder


def promote(name: str, number: int, tracking_uri: str | None = None) -> int | None:
    """Make a version the champion and remember the former one; return the former's number, if any.

    Raises
    ------
    RegistryError
        No such model or version.
    """
    with _mlflow(tracking_uri) as (_, client):
        _version(client, name, number)
        former = _aliased(client, name, CHAMPION)
        if former is not None and int(former.version) == int(number):
            return int(number)
        if former is not None:
            client.set_model_version_tag(name, str(number), _FORMER_TAG, str(former.version))
            client.set_registered_model_alias(name, PREVIOUS, str(former.version))
        client.set_registered_model_alias(name, CHAMPION, str(number))
        return int(former.version) if former is not None else None


def rollback(name: str, tracking_uri: str | None = None) -> int:
    """Give the title back to the champion before; return its number.

    Again goes further back, by the version that each one took the title from when it was last promoted.

    Raises
    ------
    RegistryError
        No such model, or nothing to go back to.
    """
    with _mlflow(tracking_uri) as (_, client):
        current, former = _aliased(client, name, CHAMPION), _aliased(client, name, PREVIOUS)
        if current is None:
            raise RegistryError(
                f"No model '{name}' with the alias '{CHAMPION}'. {_what_there_is(client, name)}"
            )
        if former is None:
            raise RegistryError(f"'{name}' has had no champion before version {current.version}.")
        client.set_registered_model_alias(name, CHAMPION, former.version)
        earlier = former.tags.get(_FORMER_TAG)
        if earlier is None:
            client.delete_registered_model_alias(name, PREVIOUS)
        else:
            client.set_registered_model_alias(name, PREVIOUS, earlier)
        return int(former.version)


@contextmanager
def _mlflow(tracking_uri: str | None) -> Iterator[tuple[Any, Any]]:
    """MLflow and a client on the store, quietly; the store that was in use before is in use again after."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    store = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    before = os.environ.get("MLFLOW_TRACKING_URI")
    with warnings.catch_warnings():
        for message, category in _MEANT:
            warnings.filterwarnings("ignore", message, category)
        import mlflow

        try:
            with _quiet_loggers():  # only now: importing MLflow sets up its loggers
                mlflow.set_tracking_uri(store)
                yield mlflow, mlflow.MlflowClient(store)
        except mlflow.exceptions.MlflowException as error:
            raise RegistryError(
                f"MLflow's store {_shown(store)} refused: {_first_line(error, store)}"
            ) from error
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Only warnings of MLflow and of the migrations that make its tables."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _experiment(client: Any, name: str) -> str:
    """Id of the experiment; with SQLite its artifacts lie beside the database, not in the working folder."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    store = client.tracking_uri
    beside = None
    if store.startswith("sqlite:///"):
        folder = re.sub(r"[^\w-]+", "-", name)
        beside = (Path(store.removeprefix("sqlite:///")).resolve().parent / "mlruns" / folder).as_uri()
    return str(client.create_experiment(name, artifact_location=beside))


def _register(client: Any, name: str, run_id: str, model: Any) -> int:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    made = client.create_model_version(name, model.model_uri, run_id=run_id, model_id=model.model_id)
    client.set_registered_model_alias(name, CHALLENGER, made.version)
    if _aliased(client, name, CHAMPION) is None:
        client.set_registered_model_alias(name, CHAMPION, made.version)
    return int(made.version)


def _find(client: Any, uri: str) -> tuple[str, Any]:
    """Name and version (MLflow's own) that the address names; RegistryError where there is none."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise RegistryError(
            f"'{uri}' is no model address; expected models:/NAME@ALIAS or models:/NAME/VERSION."
        )
    name, alias, number = match["name"], match["alias"], match["version"]
    found = _version(client, name, number) if number else _aliased(client, name, alias)
    if found is None:
        raise RegistryError(f"No model '{name}' with the alias '{alias}'. {_what_there_is(client, name)}")
    return name, found


def _aliased(client: Any, name: str, alias: str) -> Any | None:
    """Version that bears the alias; None where the model or the alias is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _version(client: Any, name: str, number: int | str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"No version {number} of model '{name}'. {_what_there_is(client, name)}"
        ) from None


def _what_there_is(client: Any, name: str) -> str:
    versions = sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'"))
    if versions:
        return f"Versions of '{name}': {', '.join(map(str, versions))}."
    known = sorted(found.name for found in client.search_registered_models())
    return f"Registered models: {', '.join(known)}." if known else "No model is registered in this store."


def _data_set(mlflow: Any, digest: str) -> Any:
    from mlflow.data.meta_dataset import MetaDataset

    source = mlflow.data.code_dataset_source.CodeDatasetSource(tags={"data_digest": digest})
    return MetaDataset(source, name="decisions", digest=digest.removeprefix("sha256:")[:36])  # type: ignore[abstract]


def _signature() -> Any:
    """Outputs only: which columns come in differs by model, and the model itself checks them."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    numbers = [ColSpec("double", name) for name in ("uplift", "lo", "hi")]
    return ModelSignature(outputs=Schema([*numbers, ColSpec("boolean", "supported")]))


def _requirements() -> list[str]:
    """What answering needs, pinned to what is installed: inferring it takes MLflow ten seconds."""
    pins = []
    for name in ("stepin", "numpy", "pandas", "scikit-learn"):
        try:
            pins.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            pins.append(name)
    return pins


def _shown(store: str) -> str:
    """The store's address without a user's password."""
    return re.sub(r"//[^/@]*@", "//", store)


def _first_line(error: Exception, store: str) -> str:
    return (str(error).splitlines() or ["no reason given"])[0].replace(store, _shown(store))
