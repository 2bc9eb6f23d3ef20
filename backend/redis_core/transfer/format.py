r"""The file: frames of records with a checksum each, and a manifest over all of them at the end.

::

    raptorflow-transfer 1\n
    frame*      length (4 bytes, big-endian), CRC-32 of the body (4 bytes), body: zstd of msgpack, a list of records
    end         length 0, CRC-32 of the body, length of the body (4 bytes), body: zstd of msgpack, the manifest

A record is an array whose first element is its kind; `records.py` has a class for each. A new kind needs a new number in the first line.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeVar

import msgspec
import zstandard

from redis_core.errors import FileDamaged, FileTooNew, TransferError
from redis_core.transfer.records import Head, Job, Manifest, Piece, Record

__all__ = [
    "FORMAT",
    "FileReader",
    "FileWriter",
]

FORMAT: Final = 1
"""The number in a file's first line."""
_NAME: Final = b"raptorflow-transfer "
_PREFIX: Final = struct.Struct(">II")
_LENGTH: Final = struct.Struct(">I")
FRAME_BYTES: Final = 256 * 1024
"""Bytes of records after which a frame is closed, about."""
_LARGEST: Final = 1 << 30
"""Most bytes of a frame, as stored and unpacked: what says that it has more is damaged. One value may have 512 MB."""
_LEVEL: Final = 3

T = TypeVar("T")


_ENCODER: Final = msgspec.msgpack.Encoder()
_RECORDS: Final = msgspec.msgpack.Decoder(list[Record])
_MANIFEST: Final = msgspec.msgpack.Decoder(Manifest)


class FileWriter:
    """Writes a file beside its place, and puts it there when it is whole: a file of that name is complete.

    Args:
        path: where to.
        scratch: ends in this until it is whole.

    Raises:
        TransferError: the file cannot be written: no space, no permission.
    """

    def __init__(self, path: Path, *, scratch: str = ".part") -> None:
        self._path = path
        self._scratch = path.with_name(path.name + scratch)
        self._hash = hashlib.sha256()
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)
        self._open: list[bytes] = []
        self._size = 0
        self._keys: dict[str, dict[str, int]] = {}
        self._items = self._jobs = self._bytes = self._frames = 0
        self.written = 0
        """Bytes of the file."""
        self._file: BinaryIO | None = None
        with _told(path):
            # What is in it is a tenant's: nobody else on this machine reads it.
            self._scratch.unlink(missing_ok=True)
            descriptor = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self._write(_NAME + b"%d\n" % FORMAT)

    def add(self, record: Record, family: str = "") -> None:
        """Add a record.

        Args:
            record: which.
            family: of a piece, for the manifest.

        Raises:
            TransferError: the file cannot be written.
        """
        if isinstance(record, Piece):
            if not record.at:
                types = self._keys.setdefault(family, {})
                types[record.type] = types.get(record.type, 0) + 1
                self._bytes += len(record.key)
            self._items += len(record.rows)
            self._bytes += sum(len(word) for row in record.rows for word in row)
        elif isinstance(record, Job):
            self._jobs += 1
            self._bytes += len(record.payload)
        encoded = _ENCODER.encode(record)
        self._open.append(encoded)
        self._size += len(encoded)
        if self._size >= FRAME_BYTES:
            self._close_frame()

    def finish(self) -> Manifest:
        """Write the manifest and put the file in its place, on the disk.

        Raises:
            TransferError: the file cannot be written.
        """
        self._close_frame()
        manifest = Manifest(
            FORMAT,
            self._keys,
            self._items,
            self._jobs,
            self._bytes,
            self._frames,
            self._hash.hexdigest(),
        )
        body = self._zstd.compress(_ENCODER.encode(manifest))
        with _told(self._path):
            self._write(_PREFIX.pack(0, zlib.crc32(body)) + _LENGTH.pack(len(body)) + body)
            file = self._opened
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._file = None
            self._scratch.replace(self._path)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove what is not whole."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError:
            # It closes with a flush, which a full disk refuses; the error that led here says so.
            if exc[0] is None:
                raise
        finally:
            self._scratch.unlink(missing_ok=True)

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise TransferError(f"{self._path}: the file is closed")
        return self._file

    def _write(self, data: bytes) -> None:
        self._opened.write(data)
        self._hash.update(data)
        self.written += len(data)

    def _close_frame(self) -> None:
        if not self._open:
            return
        # A msgpack array of records that are encoded already.
        body = self._zstd.compress(b"\xdd" + _LENGTH.pack(len(self._open)) + b"".join(self._open))
        with _told(self._path):
            self._write(_PREFIX.pack(len(body), zlib.crc32(body)) + body)
        self._open, self._size = [], 0
        self._frames += 1


class FileReader:
    """Reads a file, frame by frame.

    Args:
        path: which.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = Manifest(FORMAT, {}, 0, 0, 0, 0, "")

    def check(self) -> tuple[Head, Manifest]:
        """Read all of it; what it is, and what is in it.

        Raises:
            FileDamaged: it is no such file, cut short, or a checksum is wrong.
            FileTooNew: a newer version wrote it.
            TransferError: it cannot be read.
        """
        head: Head | None = None
        items = jobs = total = 0
        for _, records in self.frames():
            for record in records:
                if head is None:
                    if not isinstance(record, Head):
                        raise FileDamaged(f"{self.path}: it does not say what it is")
                    head = record
                if isinstance(record, Piece):
                    items += len(record.rows)
                    total += not record.at
                jobs += isinstance(record, Job)
        manifest = self.manifest
        if head is None or (items, jobs, total) != (manifest.items, manifest.jobs, manifest.total):
            raise FileDamaged(f"{self.path}: it has not what its manifest says")
        return head, manifest

    def frames(self, start: int = 0) -> Iterator[tuple[int, list[Record]]]:
        """Frames by number, those before `start` passed over unread; `manifest` is known when they are through.

        Raises:
            FileDamaged: it is no such file, cut short, or a checksum is wrong.
            FileTooNew: a newer version wrote it.
            TransferError: it cannot be read.
        """
        digest = hashlib.sha256()
        with _told(self.path), self.path.open("rb") as file:
            digest.update(self._first_line(file))
            number = 0
            while True:
                prefix = self._exactly(file, _PREFIX.size)
                length, checksum = _PREFIX.unpack(prefix)
                if not length:
                    break
                body = self._exactly(file, length)
                digest.update(prefix)
                digest.update(body)
                if number >= start:
                    yield number, self._decode(_RECORDS, body, checksum, f"frame {number}")
                number += 1
            size = _LENGTH.unpack(self._exactly(file, _LENGTH.size))[0]
            manifest = self._decode(_MANIFEST, self._exactly(file, size), checksum, "the manifest")
            if file.read(1):
                raise FileDamaged(f"{self.path}: something follows its end")
        if manifest.frames != number or manifest.sha256 != digest.hexdigest():
            raise FileDamaged(f"{self.path}: its checksum is not the manifest's")
        self.manifest = manifest

    def _first_line(self, file: BinaryIO) -> bytes:
        line = file.readline(64)
        number = line.removeprefix(_NAME).strip()
        if not line.startswith(_NAME) or not line.endswith(b"\n") or not number.isdigit():
            raise FileDamaged(f"{self.path}: this is no export or backup of raptorflow")
        if int(number) > FORMAT:
            raise FileTooNew(
                f"{self.path}: its format is {int(number)}, this version reads up to {FORMAT}: use the newer version"
            )
        return line

    def _exactly(self, file: BinaryIO, length: int) -> bytes:
        if length > _LARGEST:
            raise FileDamaged(f"{self.path}: a frame says that it has {length} bytes")
        data = file.read(length)
        if len(data) < length:
            raise FileDamaged(f"{self.path}: it is cut short after {file.tell()} bytes")
        return data

    def _decode(self, decoder: msgspec.msgpack.Decoder[T], body: bytes, checksum: int, what: str) -> T:
        if zlib.crc32(body) != checksum:
            raise FileDamaged(f"{self.path}: the checksum of {what} is wrong")
        try:
            return decoder.decode(_unpacked(body))
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise FileDamaged(f"{self.path}: {what} cannot be read: {error}") from error


@contextmanager
def _told(path: Path) -> Generator[None]:
    """Errors of the system, as ours: they are the operator's to mend, and no mistake of this program."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        what = "there is no space left for it" if full else error.strerror or type(error).__name__
        raise TransferError(f"{path}: {what}") from error


def _unpacked(body: bytes) -> bytes:
    size = zstandard.frame_content_size(body)
    if not 0 <= size <= _LARGEST:
        raise zstandard.ZstdError(f"it would have {size} bytes")
    return zstandard.ZstdDecompressor().decompress(body)
