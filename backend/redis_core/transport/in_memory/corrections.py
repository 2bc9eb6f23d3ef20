"""Commands that fakeredis answers otherwise than Redis 7 and Valkey 9 do, put right.

Found by tests/contract, which compares random sequences of commands with real servers.
"""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, ClassVar, Final

from fakeredis import _msgs
from fakeredis._command_args_parsing import Int, Timeout
from fakeredis._core import CommandItem
from fakeredis._helpers import SimpleError
from fakeredis._socket._fakesocket import FakeSocket
from fakeredis.commands_mixins.bitmap_mixin import BitfieldEncoding, BitOffset
from fakeredis.model import XStream

__all__ = ["Corrections"]

_LARGEST_EXPONENT: Final = 4931
"""Of a `long double`; also what keeps a short text from becoming a number of millions of digits."""
_EXACT: Final = Context(prec=6000)
_PLACES: Final = Decimal("1e-17")
"""Redis adds in `long double` and writes 17 places, so that 1 + 0.1 is 1.1 and not a double's 1.1000000000000001."""


class Corrections(FakeSocket):
    """What differs, over what does not."""

    CORRECTED: ClassVar[dict[str, tuple[str, tuple[Any, ...], tuple[Any, ...], str]]] = {
        "blmove": ("blocking_move", (bytes, bytes, bytes, bytes, Timeout), (), ""),
    }
    """Commands that take their arguments otherwise than fakeredis' do: method, arguments, repeated arguments, flags."""

    def incrbyfloat(self, key: Any, amount: float) -> bytes:
        """INCRBYFLOAT."""
        total = _add(key.get(b"0"), repr(amount).encode(), "ERR value is not a valid float")
        key.update(total)
        return total

    def hincrbyfloat(self, key: Any, field: bytes, amount: bytes) -> bytes:
        """HINCRBYFLOAT."""
        _decimal(amount, "ERR value is not a valid float")
        total = _add(key.value.get(field, b"0"), amount, "ERR hash value is not a float")
        key.value.update({field: total}, clear_expiration=False)
        key.updated()
        return total

    def bitfield(self, key: Any, *args: bytes) -> Any:
        """BITFIELD: nothing is done if any part is wrong, and a refused increment still lengthens the value."""
        length = _bitfield_length(args)
        found = super().bitfield(key, *args)
        value = key.get(b"")
        if len(value) < length:
            key.update(value.ljust(length, b"\0"))
        return found

    def xrange(self, key: Any, start: bytes, end: bytes, *args: bytes) -> Any:
        """XRANGE: COUNT 0 answers nil for a stream that is there."""
        found = super().xrange(key, start, end, *args)
        return None if _counts_nothing(key, args) else found

    def xrevrange(self, key: Any, end: bytes, start: bytes, *args: bytes) -> Any:
        """XREVRANGE: as XRANGE."""
        found = super().xrevrange(key, end, start, *args)
        return None if _counts_nothing(key, args) else found

    def xread(self, *args: bytes) -> Any:
        """XREAD: a key of another type is an error."""
        streams = next((at for at, word in enumerate(args) if word.upper() == b"STREAMS"), len(args)) + 1
        for name in args[streams : streams + (len(args) - streams) // 2]:
            item = self._db.get(name)
            if item is not None and not isinstance(item.value, XStream):
                raise SimpleError(_msgs.WRONGTYPE_MSG)
        return super().xread(*args)

    def blocking_move(
        self, source: bytes, destination: bytes, source_end: bytes, end: bytes, timeout: float
    ) -> Any:
        """BLMOVE: waits for a list that is not there yet."""
        if not {source_end.upper(), end.upper()} <= {b"LEFT", b"RIGHT"}:
            raise SimpleError(_msgs.SYNTAX_ERROR_MSG)

        def move(_: bool) -> Any:
            taken = CommandItem(source, self._db, item=self._db.get(source))
            given = CommandItem(destination, self._db, item=self._db.get(destination), default=[])
            if taken.value is None:
                return None
            if not isinstance(taken.value, list) or not isinstance(given.value, list):
                raise SimpleError(_msgs.WRONGTYPE_MSG)
            if source == destination:
                given = taken
            element = self._lmove(taken, given, source_end, end, first_pass=False)
            taken.writeback()
            given.writeback()
            return element

        return self._blocking(timeout, move)

    def zrandmember(self, key: Any, *args: bytes) -> Any:
        """ZRANDMEMBER: one member, not a list of one, when no count is given."""
        found = super().zrandmember(key, *args)
        return found if args else found[0] if found else None

    def _empty_stream_read_reply(self, res: Any) -> Any:
        return res or None


def _counts_nothing(key: Any, args: tuple[bytes, ...]) -> bool:
    return key.value is not None and len(args) > 1 and int(args[-1]) <= 0


def _bitfield_length(args: tuple[bytes, ...]) -> int:
    """Bytes that BITFIELD's writes reach to.

    Raises:
        SimpleError: a part of it is wrong.
    """
    words = {b"GET": 3, b"SET": 4, b"INCRBY": 4, b"OVERFLOW": 2}
    place, length = 0, 0
    while place < len(args):
        name = args[place].upper()
        part = args[place + 1 : place + words.get(name, 0)]
        if name not in words or len(part) != words[name] - 1:
            raise SimpleError(_msgs.SYNTAX_ERROR_MSG)
        if name == b"OVERFLOW":
            if part[0].upper() not in {b"WRAP", b"SAT", b"FAIL"}:
                raise SimpleError(_msgs.INVALID_OVERFLOW_TYPE)
        else:
            size = BitfieldEncoding(part[0]).size
            offset = BitOffset.decode_offset(part[1], size)
            if name != b"GET":
                Int.decode(part[2])
                length = max(length, (offset + size + 7) // 8)
        place += words[name]
    return length


def _decimal(text: bytes, otherwise: str) -> Decimal:
    try:
        if text[:1].isspace() or text[-1:].isspace() or b"_" in text:
            raise SimpleError(otherwise)
        number = Decimal(text.decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        raise SimpleError(otherwise) from None
    if number.is_nan() or (number.is_finite() and abs(number.adjusted()) > _LARGEST_EXPONENT):
        raise SimpleError(otherwise)
    return number


def _add(text: bytes, amount: bytes, otherwise: str) -> bytes:
    number, more = _decimal(text, otherwise), _decimal(amount, otherwise)
    if not (number.is_finite() and more.is_finite()):
        raise SimpleError("ERR increment would produce NaN or Infinity")
    total = _long_double(_long_double(Fraction(number)) + _long_double(Fraction(more)))
    written = f"{_EXACT.quantize(_EXACT.divide(total.numerator, total.denominator), _PLACES):f}".rstrip(
        "0"
    ).rstrip(".")
    return b"0" if written in {"-0", ""} else written.encode()


def _long_double(value: Fraction) -> Fraction:
    """The nearest number of 64 significant bits, the `long double` of x86-64."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length() - 64
    while abs(value) >= Fraction(2) ** (exponent + 64):
        exponent += 1
    unit = Fraction(2) ** exponent
    return round(value / unit) * unit
