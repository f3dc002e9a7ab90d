"""Protobuf by tables: bytes to plain JSON and back, without generated code. Pure.

A message is a table from field numbers to names and types; `messages` has those of Kubernetes,
`gnostic` that of OpenAPI v2. The invariant: decoding takes time and memory in proportion to the
bytes, whatever they are, and answers with JSON or raises Malformed; what the table does not name is
passed over, as protobuf has it.

Why not the protobuf library: it wants generated classes, and its JSON (numbers as texts, times as
its own type) is not Kubernetes'. What it would save is this page. It is the yardstick of the tests.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from resources.kind import Json

Scalar = Literal["text", "bytes", "int", "bool", "double", "time", "microtime", "json", "map"]
# A scalar, a message, or a list of one of them.
Type = Scalar | Mapping[int, Any] | list[Any]
Message = Mapping[int, tuple[str, Type]]

DEPTH_MAX = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TEXTS: Message = {1: ("key", "text"), 2: ("value", "text")}
_TIME: Message = {1: ("seconds", "int"), 2: ("nanos", "int")}
_FIELDS_V1: Message = {1: ("Raw", "text")}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Malformed(ValueError):
    """Bytes that are no message."""


# --- reading -------------------------------------------------------------------------------------


def decode(message: Message, raw: bytes, depth: int = 0) -> Json:
    """The message as JSON. Empty texts and messages count as absent: Go writes them for every
    field that is not a pointer."""
    if depth > DEPTH_MAX:
        raise Malformed("nested too deeply")
    found: Json = {}
    for number, wire, value in _fields(memoryview(raw)):
        if number not in message:
            continue
        name, type_ = message[number]
        if isinstance(type_, list):
            found.setdefault(name, []).append(_value(type_[0], wire, value, depth))
        elif type_ == "map":
            pair = decode(_TEXTS, _bytes(wire, value), depth + 1)
            found.setdefault(name, {})[pair.get("key", "")] = pair.get("value", "")
        else:
            found[name] = _value(type_, wire, value, depth)
    return {name: value for name, value in found.items() if value not in ("", {}, None)}


def _value(type_: Type, wire: int, value: int | memoryview, depth: int) -> Any:
    if isinstance(type_, Mapping):
        return decode(type_, _bytes(wire, value), depth + 1)
    match type_:
        case "int":
            return _signed(_integer(wire, value))
        case "bool":
            return bool(_integer(wire, value))
        case "bytes":
            return _bytes(wire, value)
        case "double":
            if wire != _FIXED64:
                raise Malformed("a number of another type")
            return struct.unpack("<d", value)[0]  # type: ignore[arg-type]
        case "time" | "microtime":
            return _time(decode(_TIME, _bytes(wire, value), depth + 1), type_ == "microtime")
        case "json":
            text = decode(_FIELDS_V1, _bytes(wire, value), depth + 1).get("Raw", "{}")
            try:
                return json.loads(text)
            except (ValueError, RecursionError) as error:
                raise Malformed("JSON inside is not valid") from error
        case _:
            return _text(_bytes(wire, value))


def _fields(raw: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, position = _varint(raw, position)
        else:
            if wire == _BYTES:
                size, position = _varint(raw, position)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                raise Malformed(f"wire type {wire} is not known")
            value = raw[position : position + size]
            if len(value) != size:
                raise Malformed("cut off")
            position += size
        yield number, wire, value


def _varint(raw: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(raw):
            raise Malformed("cut off")
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise Malformed("a number that does not end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _integer(wire: int, value: int | memoryview) -> int:
    if wire != _VARINT or not isinstance(value, int):
        raise Malformed("a number of another type")
    return value


def _bytes(wire: int, value: int | memoryview) -> bytes:
    if wire != _BYTES or isinstance(value, int):
        raise Malformed("a number where a text or a message should be")
    return bytes(value)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed("a text is not UTF-8") from error


def _time(found: Json, with_micros: bool) -> str | None:
    """RFC 3339. Go's zero time is an empty message, and no time at all."""
    if not found:
        return None
    try:
        micros = found.get("nanos", 0) // 1000
        moment = _EPOCH + timedelta(seconds=found.get("seconds", 0), microseconds=micros)
    except OverflowError as error:
        raise Malformed("a time out of range") from error
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").zfill(19)
    return f"{text}.{moment.microsecond:06}Z" if with_micros else f"{text}Z"


# --- writing -------------------------------------------------------------------------------------


def encode(message: Message, value: Json) -> bytes:
    """The bytes of a message. Times and JSON are read only, and so not written here."""
    out = bytearray()
    for number, (name, type_) in message.items():
        if name not in value:
            continue
        if isinstance(type_, list):
            for item in value[name]:
                _write(out, number, type_[0], item)
        elif type_ == "map":
            for key, inner in value[name].items():
                _write(out, number, _TEXTS, {"key": key, "value": inner})
        else:
            _write(out, number, type_, value[name])
    return bytes(out)


def _write(out: bytearray, number: int, type_: Type, value: Any) -> None:
    if type_ in ("int", "bool"):
        _write_varint(out, number << 3 | _VARINT)
        _write_varint(out, int(value) & 0xFFFF_FFFF_FFFF_FFFF)
        return
    if type_ == "double":
        _write_varint(out, number << 3 | _FIXED64)
        out += struct.pack("<d", value)
        return
    assert type_ in ("text", "bytes") or isinstance(type_, Mapping), f"{type_} is not written"
    if isinstance(type_, Mapping):
        raw = encode(type_, value)
    else:
        raw = value.encode() if type_ == "text" else value
    _write_varint(out, number << 3 | _BYTES)
    _write_varint(out, len(raw))
    out += raw


def _write_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
