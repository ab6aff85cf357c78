"""Salesforce's ids: fifteen signs that mind capitals, or eighteen that do not."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FIFTEEN = "^[A-Za-z0-9]{15}$"
_SIGNS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", dtype=np.uint8)


def with_eighteen(texts: pa.Array) -> tuple[pa.Array, int]:
    """Write ids of fifteen signs, as reports hold them, with eighteen, as the API does; count them.

    Each of the three further signs tells which of five signs are capitals.
    https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/field_types.htm (ID field type)
    """
    short = pc.fill_null(pc.match_substring_regex(texts, _FIFTEEN), False).to_numpy(zero_copy_only=False)
    if not short.any():
        return texts, 0
    ids = np.array(texts.filter(pa.array(short)).to_pylist(), dtype="S15")
    signs = ids.view(np.uint8).reshape(-1, 3, 5)
    is_capital = (signs >= ord("A")) & (signs <= ord("Z"))
    ends = _SIGNS[(is_capital * (1 << np.arange(5))).sum(axis=2)]
    whole = np.concatenate([ids.view(np.uint8).reshape(-1, 15), ends.astype(np.uint8)], axis=1)
    long = pa.array(np.ascontiguousarray(whole).view("S18").ravel().astype("U18"), pa.large_string())
    return pc.replace_with_mask(texts, pa.array(short), long), int(short.sum())
