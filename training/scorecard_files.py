"""A scorecard on disk: names and shapes in JSON, numbers in one npz without pickles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as BadDeflate  # noqa: N812 - a class

import numpy as np
from numpy.typing import NDArray

from features.problems import UserError
from training.basis import Feature
from training.scorecard import Cells, Pair, Scorecard, Support
from training.scorecard_check import Unfit, check_features, check_scorecard
from training.stored_arrays import MOST_BYTES, read_arrays
from training.strict_json import read_json

FORMAT = 1
MOST_JSON_BYTES = 8 * 2**20
_BAD_ZIP = (BadZipFile, BadDeflate, RuntimeError)
_TABLES = ("effect", "low", "doubt", "outcome", "propensity")


def write_scorecard(card: Scorecard, folder: Path) -> None:
    """Write both files into an existing folder.

    Raises
    ------
    UserError
        The tables are larger than `read_scorecard` reads.
    """
    about = {
        "format": FORMAT,
        "binary": card.binary,
        "heterogeneous": card.heterogeneous,
        "features": [feature.to_dict() for feature in card.features],
        "pairs": [[pair.first, pair.second] for pair in card.pairs],
        "misfit_variance": card.misfit_variance,
        "outcome_intercept": card.outcome_intercept,
        "propensity_intercept": card.propensity_intercept,
        "cell_features": list(card.cells.features),
        "one_way": [list(level) for level in card.cells.one_way],
        "support": {
            "least_propensity": card.support_rule.least_propensity,
            "least_in_cell": card.support_rule.least_in_cell,
        },
        "importance": list(card.importance),
    }
    arrays: dict[str, NDArray[Any]] = {"baseline": card.baseline, "cells": card.cells.counts}
    for table in _TABLES:
        arrays |= {f"{table}_{i}": values for i, values in enumerate(getattr(card, table))}
    arrays |= {f"pair_{i}": pair.weights for i, pair in enumerate(card.pairs)}
    if sum(values.nbytes for values in arrays.values()) > MOST_BYTES:
        raise UserError(
            f"The model's tables take more than {MOST_BYTES // 2**20} MiB, more than a server reads. "
            "Learn with fewer draws, levels or features."
        )
    (folder / "scorecard.json").write_text(json.dumps(about, indent=1, allow_nan=False), encoding="utf-8")
    np.savez_compressed(folder / "scorecard.npz", **arrays)  # type: ignore[arg-type]


def read_scorecard(folder: Path) -> Scorecard:
    """Read and check what `write_scorecard` wrote; see `Scorecard.read`."""
    try:
        about = read_json(folder / "scorecard.json", MOST_JSON_BYTES)
        if about["format"] > FORMAT:
            raise UserError(
                f"{folder} holds a scorecard of format {about['format']}; this stepin reads up to {FORMAT}. "
                "Upgrade stepin, or train again."
            )
        card = _assemble(about, folder)
        check_scorecard(card)
    except UserError:
        raise
    except Unfit as unfit:
        raise _unreadable(folder, str(unfit)) from None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        EOFError,
        OverflowError,
        *_BAD_ZIP,
    ) as error:
        known = isinstance(error, ValueError)
        raise _unreadable(folder, "ValueError" if known else type(error).__name__) from None
    return card


def _unreadable(folder: Path, what: str) -> UserError:
    return UserError(
        f"{folder} is no readable stepin model ({what} in its scorecard); "
        "copy it again from where it was made, or train again."
    )


def _assemble(about: Mapping[str, Any], folder: Path) -> Scorecard:
    features = tuple(_feature(values) for values in about["features"])
    check_features(features)
    places = [(_whole(first), _whole(second)) for first, second in about["pairs"]]
    arrays = read_arrays(folder / "scorecard.npz", _names(len(features), len(places)))
    tables = {name: tuple(arrays[f"{name}_{i}"] for i in range(len(features))) for name in _TABLES}
    pairs = tuple(Pair(*ends, arrays[f"pair_{i}"]) for i, ends in enumerate(places))
    return Scorecard(
        features=features,
        binary=_truth(about["binary"]),
        heterogeneous=_truth(about["heterogeneous"]),
        baseline=arrays["baseline"],
        pairs=pairs,
        misfit_variance=_number(about["misfit_variance"]),
        outcome_intercept=_number(about["outcome_intercept"]),
        propensity_intercept=_number(about["propensity_intercept"]),
        cells=Cells(
            tuple(_whole(i) for i in about["cell_features"]),
            arrays["cells"],
            tuple((_whole(feature), _whole(row)) for feature, row in about.get("one_way", ())),
        ),
        support_rule=Support(
            _number(about["support"]["least_propensity"]), _whole(about["support"]["least_in_cell"])
        ),
        importance=tuple(_number(value) for value in about["importance"]),
        **tables,
    )


def _names(n_features: int, n_pairs: int) -> list[str]:
    of_features = [f"{table}_{i}" for table in _TABLES for i in range(n_features)]
    return ["baseline", "cells", *of_features, *(f"pair_{i}" for i in range(n_pairs))]


def _feature(values: Mapping[str, Any]) -> Feature:
    texts = [values["name"], values["kind"], *values["levels"]]
    if not all(isinstance(text, str) for text in texts):
        raise Unfit("texts")
    for name in ("knots", "ranks"):
        if not isinstance(values[name], list):
            raise Unfit(name)
        for value in values[name]:
            _number(value)
    _truth(values["had_missing"])
    return Feature.from_dict(values)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unfit("index")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Unfit("number")
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("truth")
    return value
