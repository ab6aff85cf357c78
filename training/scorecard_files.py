"""A scorecard on disk: names and shapes in JSON, numbers in one npz without pickles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from features.problems import UserError
from training.basis import Feature
from training.scorecard import Cells, Pair, Scorecard, Support

FORMAT = 1
_TABLES = ("effect", "low", "doubt", "outcome", "propensity")


def write_scorecard(card: Scorecard, folder: Path) -> None:
    """Write both files into an existing folder."""
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
    (folder / "scorecard.json").write_text(json.dumps(about, indent=1, allow_nan=False), encoding="utf-8")
    np.savez_compressed(folder / "scorecard.npz", **arrays)  # type: ignore[arg-type]


def read_scorecard(folder: Path) -> Scorecard:
    """Read and check what `write_scorecard` wrote; see `Scorecard.read`."""
    try:
        about = json.loads((folder / "scorecard.json").read_text(encoding="utf-8"))
        with (folder / "scorecard.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if about["format"] > FORMAT:
            raise UserError(
                f"{folder} holds a scorecard of format {about['format']}; this stepin reads up to {FORMAT}. "
                "Upgrade stepin, or train again."
            )
        card = _assemble(about, arrays)
        _check(card)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile) as error:
        raise UserError(
            f"{folder} is no readable stepin model ({type(error).__name__} in its scorecard); "
            "copy it again from where it was made, or train again."
        ) from None
    return card


def _assemble(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Scorecard:
    features = tuple(Feature.from_dict(values) for values in about["features"])
    tables = {name: tuple(arrays[f"{name}_{i}"] for i in range(len(features))) for name in _TABLES}
    pairs = tuple(
        Pair(int(first), int(second), arrays[f"pair_{i}"]) for i, (first, second) in enumerate(about["pairs"])
    )
    return Scorecard(
        features=features,
        binary=bool(about["binary"]),
        heterogeneous=bool(about["heterogeneous"]),
        baseline=arrays["baseline"],
        pairs=pairs,
        misfit_variance=float(about["misfit_variance"]),
        outcome_intercept=float(about["outcome_intercept"]),
        propensity_intercept=float(about["propensity_intercept"]),
        cells=Cells(
            tuple(int(i) for i in about["cell_features"]),
            arrays["cells"],
            tuple((int(feature), int(row)) for feature, row in about.get("one_way", ())),
        ),
        support_rule=Support(
            float(about["support"]["least_propensity"]), int(about["support"]["least_in_cell"])
        ),
        importance=tuple(float(value) for value in about["importance"]),
        **tables,
    )


def _check(card: Scorecard) -> None:
    """Shapes fit each other and every number is finite; else ValueError."""
    width = len(card.baseline)
    for i, feature in enumerate(card.features):
        if len(feature.knots) != len(feature.ranks) or np.any(np.diff(feature.knots) <= 0):
            raise ValueError("knots")
        shapes = {"effect": (feature.n_rows, width), "low": (feature.n_rows, card.low[i].shape[1])}
        for name in _TABLES:
            table = getattr(card, name)[i]
            if table.shape != shapes.get(name, (feature.n_rows,)) or not np.isfinite(table).all():
                raise ValueError(name)
    for pair in card.pairs:
        shape = (card.low[pair.first].shape[1], card.low[pair.second].shape[1], width)
        if pair.weights.shape != shape or not np.isfinite(pair.weights).all():
            raise ValueError("pair")
    cells = tuple(card.features[i].n_rows for i in card.cells.features)
    one_way_rows = {i: card.features[i].n_rows for i, _ in card.cells.one_way}
    if any(i < 0 or not 0 <= row < one_way_rows[i] for i, row in card.cells.one_way):
        raise ValueError("one_way")
    if card.cells.counts.shape != (*cells, 2) or not np.isfinite(card.baseline).all():
        raise ValueError("cells")
