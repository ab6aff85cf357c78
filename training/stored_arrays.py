"""Arrays from an npz file that nobody vouches for: what each claims to be is checked before it is read.

``numpy.load`` makes room for whatever a header claims, and evaluates the header as Python literals. Here a
header is the one line that ``numpy.savez`` writes, or it is refused.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 256 * 2**20
"""Of all arrays together, in memory."""
MOST_DIRECTORY_BYTES = 2**21
"""Of the list of the arrays' names: some 30,000 of them."""
_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 1024
_PIECE_BYTES = 2**20
_HEADER = re.compile(
    rb"\{'descr': '(<f8|<f4|<i8|<i4)', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,12}(?:, \d{1,12}){1,5}|\d{1,12},|)\), \} *\n"
)
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read exactly the arrays `names`, floats as float64 and whole numbers as int64.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        The file is damaged, holds other arrays than those, or one that is too large, is no plain array of
        numbers, or is not of the size that it claims.
    """
    _check_directory(path)
    with ZipFile(path) as stored:
        members = stored.infolist()
        if sorted(member.filename for member in members) != sorted(f"{name}.npy" for name in names):
            raise ValueError("arrays")
        if sum(member.file_size for member in members) > MOST_BYTES:
            raise ValueError("size")
        return {member.filename.removesuffix(".npy"): _read(stored, member) for member in members}


def _check_directory(path: Path) -> None:
    """The list of names is short: `ZipFile` reads all of it at once."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 42))
        tail = file.read(42)
    end, before = tail[-22:], tail[:-22]
    if not end.startswith(_END) or before.startswith(_END_64):
        raise ValueError("zip")
    if int.from_bytes(end[12:16], "little") > MOST_DIRECTORY_BYTES:
        raise ValueError("size")


def _read(stored: ZipFile, member: ZipInfo) -> NDArray[Any]:
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError("zip")
    with stored.open(member) as file:
        dtype, in_columns, shape, header = _header(file)
        count = 1
        for side in shape:
            count *= side
        if len(_MAGIC) + 2 + header + count * dtype.itemsize != member.file_size:
            raise ValueError("size")
        room = np.empty(count * dtype.itemsize, np.uint8)
        _fill(room, file)
    values = room.view(dtype).reshape(shape, order="F" if in_columns else "C")
    return values.astype(np.float64 if dtype.kind == "f" else np.int64, copy=False)


def _fill(room: NDArray[np.uint8], file: IO[bytes]) -> None:
    """Piece by piece: reading it at once would take half as much again."""
    done = 0
    while done < len(room):
        piece = file.read(min(_PIECE_BYTES, len(room) - done))
        if not piece:
            raise ValueError("size")
        room[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)


def _header(file: IO[bytes]) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Type, whether it is stored by columns, shape, and length of the header in bytes."""
    start = file.read(len(_MAGIC) + 2)
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if not start.startswith(_MAGIC) or length > _LONGEST_HEADER:
        raise ValueError("header")
    match = _HEADER.fullmatch(file.read(length))
    if match is None:
        raise ValueError("header")
    shape = tuple(int(side) for side in match[3].replace(b" ", b"").split(b",") if side)
    return np.dtype(match[1].decode()), match[2] == b"True", shape, length
