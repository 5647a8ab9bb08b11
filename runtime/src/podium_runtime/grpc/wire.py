"""Protobuf's wire format, read and written by tables.

Called by `skin` and `requests` with the tables of `schema`. Of the format it knows what proto3 can express: varints,
fixed 4 and 8 bytes, length-delimited fields, packed and unpacked numbers, maps; unknown fields are skipped. Numbers
that repeat are handed out as they came, in packed form, and turned into arrays by `integers` and numpy.

What comes in is hostile until proven otherwise: every length is checked before it is used, depth is that of the tables,
and one message may have FIELDS_LIMIT fields in all. Every refusal is an `InvalidInput` that names the field.

Source: the encoding as described in the protobuf documentation ("Encoding").
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from podium_runtime.errors import InvalidInput
from podium_runtime.raw import Buffer

Kind = Literal["bool", "int64", "uint64", "double", "string", "bytes", "message", "map", "varints", "fixed"]

FIELDS_LIMIT = 250_000
"""Fields in one message, those of its parts included: about half a second of work."""
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_CHUNK = 1 << 16
_DOUBLE = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    `varints` and `fixed` are numbers that repeat, of `width` bytes each where fixed; their value is a buffer in packed
    form. `map` has texts as keys and `message` as values.
    """

    name: str
    kind: Kind
    repeated: bool = False
    message: "Message | None" = None
    width: int = 0
    most: int = 0
    """The most elements of a repeated field or map, bytes of a number that repeats; 0: no limit of its own."""


class Message:
    """A message's fields by number."""

    def __init__(self, fields: Mapping[int, Field]) -> None:
        self.fields = fields
        self.by_tag: dict[int, Field] = {}
        """By field number and wire type as they stand in front of a field."""
        for number, field in fields.items():
            for wire_type in _wire_types(field):
                self.by_tag[number << 3 | wire_type] = field


def _wire_types(field: Field) -> tuple[int, ...]:
    match field.kind:
        case "bool" | "int64" | "uint64":
            return (_VARINT,)
        case "double":
            return (_FIXED64,)
        case "varints":
            return (_DELIMITED, _VARINT)
        case "fixed":
            return (_DELIMITED, _FIXED32 if field.width == 4 else _FIXED64)
    return (_DELIMITED,)


# Reading.


class _Reader:
    """One reading of one message. `left` counts the fields that may still come."""

    __slots__ = ("left", "view")

    def __init__(self, data: Buffer) -> None:
        self.view = memoryview(data)
        self.left = FIELDS_LIMIT

    def message(
        self, message: Message, at: int, end: int, where: str, into: dict[str, Any]
    ) -> dict[str, Any]:
        view, by_tag = self.view, message.by_tag
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise InvalidInput(where, f"at most {FIELDS_LIMIT} fields in a message", "more")
            tag = view[at]
            at += 1
            if tag > 0x7F:
                tag, at = self.varint(at - 1, end, where)
            field = by_tag.get(tag)
            if field is None:
                at = self.skip(tag, at, end, message, where)
                continue
            kind = tag & 7
            if kind == _DELIMITED:
                start, at = self.length(at, end, field, where)
                self.delimited(field, start, at, where, into)
            elif kind == _VARINT:
                start = at
                value, at = self.varint(at, end, _inside(where, field.name))
                if field.kind == "varints":
                    _append(into, field, view[start:at], where)
                else:
                    into[field.name] = _scalar(field.kind, value)
            else:
                start, at = at, at + (4 if kind == _FIXED32 else 8)
                if at > end:
                    raise InvalidInput(
                        _inside(where, field.name), f"{at - start} bytes", "the end of the message"
                    )
                if field.kind == "fixed":
                    _append(into, field, view[start:at], where)
                else:
                    into[field.name] = _DOUBLE.unpack_from(view, start)[0]
        return into

    def delimited(self, field: Field, start: int, end: int, where: str, into: dict[str, Any]) -> None:
        """Take in the field whose content lies from `start` to `end`."""
        name = field.name
        match field.kind:
            case "string":
                value: Any = self.text(start, end, where, name)
            case "bytes":
                value = self.view[start:end]
            case "message" if field.message is not None:
                if not field.repeated:
                    # Twice the same part means: one part with the fields of both.
                    part = into.setdefault(name, {})
                    self.message(field.message, start, end, _inside(where, name), part)
                    return
                inside = f"{_inside(where, name)}[{len(into.get(name, ()))}]"
                value = self.message(field.message, start, end, inside, {})
            case "map" if field.message is not None:
                self.entry(field, start, end, where, into)
                return
            case _:
                _append(into, field, self.view[start:end], where)
                return
        if not field.repeated:
            into[name] = value
            return
        values = into.setdefault(name, [])
        if field.most and len(values) == field.most:
            raise InvalidInput(_inside(where, name), f"at most {field.most} of them", "more")
        values.append(value)

    def entry(self, field: Field, start: int, end: int, where: str, into: dict[str, Any]) -> None:
        """One entry of a map is a message of its own: the key is its field 1, the value field 2."""
        inside = _inside(where, field.name)
        entry = self.message(_entry(field), start, end, inside, {})
        values = into.setdefault(field.name, {})
        if field.most and len(values) == field.most:
            raise InvalidInput(inside, f"at most {field.most} of them", "more")
        values[entry.get("key", "")] = entry.get("value", {})

    def text(self, start: int, end: int, where: str, name: str) -> str:
        try:
            return str(self.view[start:end], "utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(_inside(where, name), "a text in UTF-8", "other bytes") from None

    def length(self, at: int, end: int, field: Field, where: str) -> tuple[int, int]:
        """Where a length-delimited content begins and ends."""
        if at < end and (size := self.view[at]) < 0x80:
            at += 1
        else:
            size, at = self.varint(at, end, _inside(where, field.name))
        if size > end - at:
            raise InvalidInput(
                _inside(where, field.name),
                f"{size} bytes, as its length says",
                f"{end - at} bytes to the end",
            )
        return at, at + size

    def varint(self, at: int, end: int, where: str) -> tuple[int, int]:
        """The unsigned value of a varint, and the place after it."""
        value = shift = 0
        for place in range(at, min(end, at + _VARINT_BYTES)):
            byte = self.view[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
            shift += 7
        got = "the end of the message" if end - at < _VARINT_BYTES else "a longer one"
        raise InvalidInput(where, f"a varint of at most {_VARINT_BYTES} bytes", got)

    def skip(self, tag: int, at: int, end: int, message: Message, where: str) -> int:
        """The place after a field that the table does not have. Raises InvalidInput for what no field can be."""
        number, kind = tag >> 3, tag & 7
        known = message.fields.get(number)
        if known is not None:
            raise InvalidInput(_inside(where, known.name), f"a {known.kind}", f"wire type {kind}")
        if not 0 < number < 1 << 29:
            raise InvalidInput(where, "field numbers from 1 to 536870911", "another one")
        unknown = f"field {number}"
        if kind == _VARINT:
            return self.varint(at, end, _inside(where, unknown))[1]
        if kind == _DELIMITED:
            return self.length(at, end, Field(unknown, "bytes"), where)[1]
        if kind in (_FIXED32, _FIXED64):
            after = at + (4 if kind == _FIXED32 else 8)
            if after <= end:
                return after
            raise InvalidInput(_inside(where, unknown), f"{after - at} bytes", "the end of the message")
        raise InvalidInput(
            _inside(where, unknown), "a wire type of proto3 (0, 1, 2 or 5)", f"wire type {kind}"
        )


_ENTRIES: dict[int, Message] = {}


def _entry(field: Field) -> Message:
    found = _ENTRIES.get(id(field.message))
    if found is None:
        found = Message({1: Field("key", "string"), 2: Field("value", "message", message=field.message)})
        _ENTRIES[id(field.message)] = found
    return found


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _scalar(kind: Kind, value: int) -> int | bool:
    if kind == "bool":
        return value != 0
    return value - (1 << 64) if kind == "int64" and value >> 63 else value


def _append(into: dict[str, Any], field: Field, piece: memoryview, where: str) -> None:
    """Numbers that repeat may come in pieces, packed or one by one."""
    pieces = into.setdefault(field.name, [])
    if not piece:
        # An empty one adds nothing: kept, any number of them would stay under every limit of bytes.
        return
    if field.most:
        # The few bytes there may be are kept in one piece, so that counting them does not grow with the pieces.
        piece = memoryview(b"".join((*pieces, piece)))
        pieces.clear()
        if len(piece) > field.most:
            raise InvalidInput(_inside(where, field.name), f"at most {field.most} bytes", "more")
    pieces.append(piece)
    if field.width and len(piece) % field.width:
        raise InvalidInput(
            _inside(where, field.name), f"numbers of {field.width} bytes each", f"{len(piece)} bytes"
        )


def decode(message: Message, data: Buffer) -> dict[str, Any]:
    """Return the fields of an encoded message by name; those that are missing in it are missing here.

    Texts are str, bytes are views into `data`, parts are dicts, repeated ones lists, maps dicts; numbers that repeat
    are lists of buffers that make up their packed form (see `packed`). Raises InvalidInput.
    """
    reader = _Reader(data)
    return reader.message(message, 0, len(reader.view), "", {})


def packed(pieces: list[memoryview]) -> Buffer:
    """The packed form of numbers that repeat, from the pieces in which they came."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def few_integers(data: Buffer, where: str) -> list[int]:
    """The signed values of packed varints, one by one: for the dozen of a shape. Raises InvalidInput."""
    values: list[int] = []
    reader, at = _Reader(data), 0
    while at < len(data):
        value, at = reader.varint(at, len(data), f"{where}[{len(values)}]")
        values.append(int(_scalar("int64", value)))
    return values


def count_integers(data: Buffer) -> int:
    """How many varints there are in packed form; a last one that does not end counts too."""
    octets = np.frombuffer(data, dtype=np.uint8)
    return int(np.count_nonzero(octets < 0x80)) + bool(octets.size and octets[-1] >= 0x80)


def integers(data: Buffer, out: NDArray[np.uint64], where: str) -> None:
    """Write the values of packed varints into `out`, which has as many elements. Raises InvalidInput.

    In chunks, so that what it needs beside `out` does not grow with the message.
    """
    octets = np.frombuffer(data, dtype=np.uint8)
    if octets.size and octets[-1] >= 0x80:
        raise InvalidInput(f"{where}[{len(out) - 1}]", "a varint", "the end of the numbers")
    at = done = 0
    while at < octets.size:
        chunk = octets[at : at + _CHUNK]
        ends = np.flatnonzero(chunk < 0x80) + 1
        if not ends.size:
            raise InvalidInput(
                f"{where}[{done}]", f"a varint of at most {_VARINT_BYTES} bytes", "a longer one"
            )
        values = out[done : done + ends.size]
        if ends.size == ends[-1]:
            values[:] = chunk[: ends[-1]]
        else:
            starts = np.concatenate(([0], ends[:-1]))
            lengths = ends - starts
            if lengths.max() > _VARINT_BYTES:
                index = done + int(np.argmax(lengths > _VARINT_BYTES))
                raise InvalidInput(
                    f"{where}[{index}]", f"a varint of at most {_VARINT_BYTES} bytes", "a longer one"
                )
            places = np.arange(ends[-1]) - np.repeat(starts, lengths)
            bits = (chunk[: ends[-1]] & np.uint8(0x7F)).astype(np.uint64) << (places * 7).astype(np.uint64)
            values[:] = np.add.reduceat(bits, starts)
        done += ends.size
        at += int(ends[-1])


# Writing.


def encode(message: Message, values: Mapping[str, Any]) -> bytes:
    """Return the encoded message. Every field that `values` names is written, also where it is zero or empty.

    Numbers that repeat are given in packed form; a shape may be a sequence of int.
    """
    parts: list[Buffer] = []
    _write(message, values, parts)
    return b"".join(parts)


def _write(message: Message, values: Mapping[str, Any], parts: list[Buffer]) -> int:
    """Append the encoded fields to `parts` and return their length in bytes."""
    total = 0
    for number, field in message.fields.items():
        value = values.get(field.name)
        if value is None:
            continue
        if field.kind in ("bool", "int64", "uint64"):
            head = encode_varint(number << 3 | _VARINT) + encode_varint(int(value))
            parts.append(head)
            total += len(head)
        elif field.kind == "double":
            head = encode_varint(number << 3 | _FIXED64) + _DOUBLE.pack(value)
            parts.append(head)
            total += len(head)
        elif field.kind == "map":
            entries = ({"key": key, "value": content} for key, content in value.items())
            total += _write_delimited(number, Field("", "message", message=_entry(field)), entries, parts)
        else:
            total += _write_delimited(number, field, value if field.repeated else (value,), parts)
    return total


def _write_delimited(number: int, field: Field, values: Iterable[Any], parts: list[Buffer]) -> int:
    tag = encode_varint(number << 3 | _DELIMITED)
    total = 0
    for value in values:
        inner: list[Buffer] = []
        if field.message is not None:
            size = _write(field.message, value, inner)
        else:
            content = _content(field, value)
            inner.append(content)
            size = len(content)
        head = tag + encode_varint(size)
        parts.append(head)
        parts += inner
        total += len(head) + size
    return total


def _content(field: Field, value: Any) -> Buffer:
    if field.kind == "string":
        return str(value).encode("utf-8", "replace")
    if field.kind == "varints" and isinstance(value, tuple | list):
        return b"".join(map(encode_varint, value))
    content: Buffer = value
    return content


def encode_varint(value: int) -> bytes:
    """The varint of a number from -2**63 to 2**64 - 1; a negative one takes ten bytes."""
    if 0 <= value < 0x80:
        return value.to_bytes(1, "little")
    value &= 0xFFFF_FFFF_FFFF_FFFF
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def encode_integers(values: NDArray[Any]) -> bytes:
    """The packed form of an array of integers or booleans."""
    flat = values.ravel()
    return b"".join(_encode_chunk(flat[at : at + _CHUNK]) for at in range(0, flat.size, _CHUNK))


def _encode_chunk(values: NDArray[Any]) -> bytes:
    # By way of int64: a negative number of any width is written with the sign in all 64 bits.
    wide = values.astype(np.int64 if values.dtype.kind == "i" else np.uint64).view(np.uint64)
    lengths = np.ones(wide.size, dtype=np.int64)
    for groups in range(1, _VARINT_BYTES):
        longer = wide >> np.uint64(7 * groups) != 0
        if not longer.any():
            break
        lengths += longer
    ends = np.cumsum(lengths)
    octets = np.empty(int(ends[-1]), dtype=np.uint8)
    starts = ends - lengths
    for group in range(int(lengths.max())):
        has = lengths > group
        octet = (wide[has] >> np.uint64(7 * group)).astype(np.uint8) & np.uint8(0x7F)
        octets[starts[has] + group] = octet | np.where(lengths[has] > group + 1, 0x80, 0).astype(np.uint8)
    return octets.tobytes()
