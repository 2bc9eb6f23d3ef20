"""Whether SQLite can read all of a write-ahead log that was once committed.

A log is read up to the first frame whose checksum is wrong, and what follows is dropped without a word: right for a torn end, but
one flipped bit in the middle then loses every later commit in silence. A frame behind that point which belongs to the same log
and ends a transaction gives it away. Format: https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

__all__ = ["last_commit"]

_HEADER: Final = 32
_FRAME: Final = 24
_PAGE_SIZES: Final = frozenset(1 << power for power in range(9, 17))


def last_commit(database: Path) -> int:
    """The number of the last frame in the log that ends a transaction of the log's first generation; 0 where there is none.

    Args:
        database: the database's path; its log is beside it.
    """
    try:
        log = database.with_name(database.name + "-wal").read_bytes()
    except FileNotFoundError:
        return 0
    if len(log) < _HEADER + _FRAME:
        return 0
    page_size = int.from_bytes(log[8:12], "big")
    step = _FRAME + (page_size if page_size in _PAGE_SIZES else 4096)
    salts, last = _salts(log, step), 0
    for number, start in enumerate(range(_HEADER, len(log) - step + 1, step), 1):
        _, size, *salt = struct.unpack_from(">IIII", log, start)
        if size and tuple(salt) == salts:
            last = number
    return last


def _salts(log: bytes, step: int) -> tuple[int, int]:
    """The generation of the log by its header, or by its first frame where the header agrees with none of two."""
    header: tuple[int, int] = struct.unpack_from(">II", log, 16)
    first: tuple[int, int] = struct.unpack_from(">II", log, _HEADER + 8)
    if header == first or len(log) < _HEADER + 2 * step:
        return header
    second: tuple[int, int] = struct.unpack_from(">II", log, _HEADER + step + 8)
    return first if first == second else header
