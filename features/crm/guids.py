"""Ids of Dataverse: GUIDs, whether they come bare, in capitals, in braces, or after their table's name."""

import pyarrow as pa
import pyarrow.compute as pc

_GUID = r"^(?:[A-Za-z_0-9]+,)?\{?(?P<id>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?$"


def bare(texts: pa.Array) -> tuple[pa.Array, int]:
    """Write GUIDs bare and in small letters; count those that were not. Texts that are none stay."""
    ids = pc.utf8_lower(pc.struct_field(pc.extract_regex(texts, _GUID), "id"))
    written = pc.coalesce(ids, texts)
    changed = pc.fill_null(pc.not_equal(written, texts), False)
    return written, int(pc.sum(pc.cast(changed, "int64")).as_py() or 0)
