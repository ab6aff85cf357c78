"""What a fit refuses: settings and targets that nothing can be learned from."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.problems import UserError
from training.basis import Array
from training.columns import codes_of
from training.nuisance import Nuisances

Given = NDArray | pd.Series | None

_LEAST = {"n_folds": 2, "draws": 2, "most_pairs": 0, "most_levels": 1}


def check_settings(settings: dict[str, object]) -> None:
    """Refuse counts that are no whole numbers or too small, and a propensity that leaves nothing supported.

    Raises
    ------
    UserError
        Names the parameter, what was expected, and what came.
    """
    for name, least in _LEAST.items():
        value = settings[name]
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise UserError(f"{name} should be a whole number, {least} or more; came {value!r}.")
    propensity = settings["least_propensity"]
    if not isinstance(propensity, int | float | np.number) or not 0 <= float(propensity) < 0.5:
        raise UserError(f"least_propensity should be at least 0 and below 0.5; came {propensity!r}.")


def check_targets(n: int, treatment: Given, outcome: Given) -> tuple[NDArray[np.bool_], Array, bool]:
    """Treatment as booleans, outcome as floats, both of shape (n,), and whether the outcome is binary.

    Raises
    ------
    UserError
        Lengths differ, a value is missing or infinite, or there is nothing to compare.
    """
    if n < 2:
        raise UserError(f"X has {n} sample(s); a minimum of 2 is required, and hundreds are needed.")
    arrays = {name: _numbers(name, v, n) for name, v in (("treatment", treatment), ("outcome", outcome))}
    if not np.isin(arrays["treatment"], (0, 1)).all():
        raise UserError("treatment should be 0 or 1 (or booleans) in every row; other numbers came.")
    binary = bool(np.isin(arrays["outcome"], (0, 1)).all())
    return arrays["treatment"] == 1, arrays["outcome"], binary


def check_nuisances(n: int, nuisances: Nuisances | None) -> None:
    """Refuse nuisances of other rows, which `UserError` says."""
    if nuisances is not None and len(nuisances.propensity) != n:
        raise UserError(
            f"nuisances are of {len(nuisances.propensity)} rows, X has {n}; give those of the same rows."
        )


def check_weights(weights: Given, treated: NDArray[np.bool_]) -> Array | None:
    """What each outcome counts for as floats of shape (n,), or None for none.

    Raises
    ------
    UserError
        Another length, something missing, infinite or below 0, or no outcome left of one choice.
    """
    if weights is None:
        return None
    array = np.asarray(weights, dtype=float)
    if array.shape != treated.shape:
        raise UserError(f"outcome_weight has {array.size} values for {len(treated)} rows; give one for each.")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise UserError("outcome_weight should be 0 or more in every row; smaller or unknown ones came.")
    for is_in, choice in ((True, "stepping in"), (False, "stepping back")):
        if not array[treated == is_in].any():
            raise UserError(f"outcome_weight is 0 for every row of {choice}; its outcome can't be learned.")
    return array


def label_codes(labels: Given, n: int, name: str) -> NDArray[np.int64] | None:
    """Codes of shape (n,) for labels, or None for none; other lengths are refused."""
    if labels is None:
        return None
    if len(labels) != n:
        raise UserError(f"{name} has {len(labels)} values for {n} rows of X; give one for each row.")
    return codes_of(labels)


def _numbers(name: str, values: Given, n: int) -> Array:
    if values is None:
        raise UserError(f"{name} is None; give one value for each of the {n} rows of X.")
    given = np.asarray(values)
    if given.ndim != 1:
        raise UserError(f"{name} should be a 1d array; came {given.ndim} dimensions.")
    if np.iscomplexobj(given):
        raise UserError(f"{name}: Complex data not supported; give real numbers.")
    try:
        array = np.asarray(pd.Series(given).astype("float64"), dtype=float)
    except (TypeError, ValueError):
        raise UserError(f"{name} should be numbers or booleans; came texts. Code it as 0 and 1.") from None
    if array.shape != (n,):
        raise UserError(f"{name} has {array.size} values for {n} rows of X; give one for each row.")
    if not np.isfinite(array).all():
        raise UserError(
            f"{name} is missing or infinite in {(~np.isfinite(array)).sum()} rows; leave them out."
        )
    if (array == array[0]).all():
        raise UserError(f"{name} has one value only ({array[0]:g}); there is nothing to compare.")
    return array
