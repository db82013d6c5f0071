"""Values to and from the bytes of a hash field: one msgpack object a value, read by the declared type.

None, int, float, str, bool and bytes are plain msgpack, so that a Lua script can read them; `tagged.py` gives
the form of all else. The plain ones are packed and unpacked by hand here, since they are most of what is stored
and a call of msgpack takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from popoto.orm.coerce import coercer_for, describe
from popoto.orm.tagged import (
    DAMAGE,
    FROM_BODY,
    TO_BODY,
    TYPE_NAMES,
    CodecError,
    decode_any,
    decode_dict,
    encode_any,
    lone_surrogate,
    tag_prefix,
)

__all__ = ["CANONICAL_TYPES", "CodecError", "Decoder", "Encoder", "checked", "decoder_for", "encoder_for"]

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes], Any]

CANONICAL_TYPES: Final[frozenset[type]] = frozenset({str, int, bool, bytes, date})
"""Types of which equal values, encoded here, have equal bytes, so that bytes can stand for values in a comparison.

The others have equal values of different bytes: float (0.0 and -0.0, and 1 when Lua wrote 1.0), Decimal (1.0 and
1.00), datetime and time (one instant at two offsets), list and tuple (their items), set and dict (their order).
"""


def encoder_for(type_: type) -> Encoder:
    """Return the function that encodes None or a value of exactly `type_`; `object` stands for any type.

    It converts nothing (`coerce.py` does, when a value is given): index keys are made of the value too, and an
    encoder that converted on its own would store something else than what they say.

    Raises: CodecError: `type_` has no wire form. The function raises it for a value of another type, and for one
        that holds what cannot be encoded.
    """
    try:
        return _ENCODERS[type_]
    except KeyError:
        raise _no_wire_form(type_) from None


def decoder_for(type_: type) -> Decoder:
    """Return the function that decodes bytes to None or a value of `type_`; `object` is what the bytes say.

    Lua's cmsgpack writes 1.0 as 1. So a float field reads an integer too and an int field an integral float,
    where that is exact. Nothing else is bridged.

    Raises: CodecError: `type_` has no wire form. The function raises it, and nothing else, for bytes that are
        damaged or hold a value of another type.
    """
    try:
        return _DECODERS[type_]
    except KeyError:
        raise _no_wire_form(type_) from None


def _no_wire_form(type_: type) -> CodecError:
    return CodecError(f"{type_!r} is no type of a stored value; use one of {TYPE_NAMES}, or object for any of them")


# Encoders ----------------------------------------------------------------------------------------------

_NIL: Final = b"\xc0"
_SMALL_INTS: Final = tuple(bytes((n if n < 128 else n + 96,)) for n in range(160))  # [-1] is the last one: 0xff
_UNSIGNED: Final = tuple(
    (2 ** (8 * size), head, Struct(f">B{code}").pack)
    for size, head, code in ((1, 0xCC, "B"), (2, 0xCD, "H"), (4, 0xCE, "I"), (8, 0xCF, "Q"))
)
_SIGNED: Final = tuple(
    (-(2 ** (8 * size - 1)), head, Struct(f">B{code}").pack)
    for size, head, code in ((1, 0xD0, "b"), (2, 0xD1, "h"), (4, 0xD2, "i"), (8, 0xD3, "q"))
)
_STR_HEADS: Final = tuple(bytes((0xA0 + n,)) if n < 32 else bytes((0xD9, n)) for n in range(256))
_BYTES_HEADS: Final = tuple(bytes((0xC4, n)) for n in range(256))
_pack_float: Final = Struct(">Bd").pack


def _encode_int(value: Any) -> bytes:
    if type(value) is not int:
        return _nil_or_error(int, value)
    if -32 <= value < 128:
        return _SMALL_INTS[value]
    if value > 0:
        for limit, head, pack in _UNSIGNED:
            if value < limit:
                return pack(head, value)
    else:
        for limit, head, pack in _SIGNED:
            if value >= limit:
                return pack(head, value)
    return encode_any(value)


def _encode_float(value: Any) -> bytes:
    return _pack_float(0xCB, value) if type(value) is float else _nil_or_error(float, value)


def _encode_bool(value: Any) -> bytes:
    if value is True:
        return b"\xc3"
    if value is False:
        return b"\xc2"
    return _nil_or_error(bool, value)


def _encode_str(value: Any) -> bytes:
    if type(value) is not str:
        return _nil_or_error(str, value)
    try:
        text = value.encode()
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None
    size = len(text)
    if size < 256:
        return _STR_HEADS[size] + text
    return b"\xda" + size.to_bytes(2, "big") + text if size < 65536 else encode_any(value)


def _encode_bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        return _nil_or_error(bytes, value)
    size = len(value)
    return _BYTES_HEADS[size] + value if size < 256 else encode_any(value)


def _encode_object(value: Any) -> bytes:
    encode = _ENCODERS.get(type(value))
    return encode_any(value) if encode is None or type(value) is object else encode(value)


def _container_encoder(type_: type) -> Encoder:
    def encode(value: Any) -> bytes:
        return encode_any(value) if type(value) is type_ else _nil_or_error(type_, value)

    return encode


def _text_encoder(type_: type) -> Encoder:
    """Encoder of a tagged text, of which all but the text is constant."""
    to_text = TO_BODY[type_][1]
    prefix = tag_prefix(type_)

    def encode(value: Any) -> bytes:
        if type(value) is not type_:
            return _nil_or_error(type_, value)
        try:
            return prefix + _encode_str(to_text(value))
        except CodecError:
            raise
        except Exception as error:  # a time zone class of the user's may raise anything
            raise CodecError(f"a {type_.__name__} cannot be stored: {error}") from error

    return encode


def _nil_or_error(type_: type, value: object) -> bytes:
    if value is None:
        return _NIL
    try:
        coercer_for(type_)(value)
    except ValueError as error:
        raise CodecError(str(error)) from None
    raise CodecError(f"expected {type_.__name__}, got {describe(value)}; convert it first")


# Decoders: the common forms by hand, all others and all errors by `_decode_slow` -----------------------

_ONE_BYTE_INTS: Final = {_NIL: None, **{_SMALL_INTS[n]: n for n in range(-32, 128)}}
_WIDE_INTS: Final = {bytes((0xCC + n,)): Struct(f">x{code}").unpack for n, code in enumerate("BHIQbhiq")}
_BOOLS: Final = {_NIL: None, b"\xc2": False, b"\xc3": True}
_BRIDGED: Final[dict[type, type]] = {float: int, int: float}
_FLOAT_SIZE: Final = 9
_unpack_float: Final = Struct(">xd").unpack


def _decode_slow(type_: type, data: bytes) -> Any:
    return None if data == _NIL else checked(type_, decode_any(data))


def checked(type_: type, value: Any) -> Any:
    """Return what was decoded as the declared type. Raises: CodecError: it is of another one."""
    if type(value) is type_ or value is None:
        return value
    if _BRIDGED.get(type_) is type(value):
        try:
            return coercer_for(type_)(value)
        except ValueError as error:
            raise CodecError(f"the field's type and its stored value differ: {error}") from None
    raise CodecError(f"the field's type and its stored value differ: expected {type_.__name__}, got {describe(value)}")


def _decode_int(data: bytes) -> Any:
    if data in _ONE_BYTE_INTS:
        return _ONE_BYTE_INTS[data]
    unpack = _WIDE_INTS.get(data[:1])
    if unpack is not None:
        try:
            return unpack(data)[0]
        except StructError:  # cut short, or followed by more
            pass
    return _decode_slow(int, data)


def _decode_float(data: bytes) -> Any:
    if len(data) == _FLOAT_SIZE and data[0] == 0xCB:
        return _unpack_float(data)[0]
    return _decode_slow(float, data)


def _decode_bool(data: bytes) -> Any:
    return _BOOLS[data] if data in _BOOLS else _decode_slow(bool, data)


def _decode_str(data: bytes) -> Any:
    try:
        head = data[0]
        if 0xA0 <= head < 0xC0 and len(data) == head - 0x9F:
            return data[1:].decode()
        if head == 0xD9 and len(data) == data[1] + 2:
            return data[2:].decode()
    except (IndexError, UnicodeDecodeError):
        pass
    return _decode_slow(str, data)


def _decode_dict(data: bytes) -> Any:
    return checked(dict, decode_dict(data))


def _slow_decoder(type_: type) -> Decoder:
    def decode(data: bytes) -> Any:
        return _decode_slow(type_, data)

    return decode


def _text_decoder(type_: type) -> Decoder:
    of_text = FROM_BODY[TO_BODY[type_][0]]
    prefix = tag_prefix(type_)
    start = len(prefix)

    def decode(data: bytes) -> Any:
        if data.startswith(prefix):
            try:
                return of_text(_decode_str(data[start:]))
            except DAMAGE:  # the slow way fails as well, and says why
                pass
        return _decode_slow(type_, data)

    return decode


_ENCODERS: Final[dict[type, Encoder]] = {
    object: _encode_object,
    int: _encode_int,
    float: _encode_float,
    bool: _encode_bool,
    str: _encode_str,
    bytes: _encode_bytes,
    **{type_: _container_encoder(type_) for type_ in (list, tuple, set, dict)},
    **{type_: _text_encoder(type_) for type_ in (Decimal, datetime, date, time)},
}
_DECODERS: Final[dict[type, Decoder]] = {
    object: decode_any,
    int: _decode_int,
    float: _decode_float,
    bool: _decode_bool,
    str: _decode_str,
    dict: _decode_dict,
    **{type_: _slow_decoder(type_) for type_ in (bytes, list, tuple, set)},
    **{type_: _text_decoder(type_) for type_ in (Decimal, datetime, date, time)},
}
