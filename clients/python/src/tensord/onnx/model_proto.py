"""ONNX models as protobuf: where tensors are in them, which files weights lie in, and what of a model is no weights.
Numbers of fields are those of onnx.proto3. Nothing here opens a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .protobuf import LENGTH_DELIMITED, Malformed, Read, fields, reader_of

# Where messages with tensors in them lie inside others.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
EXTERNAL_DATA, KEY, VALUE = 13, 1, 2
# Of protobuf's own readers.
MAX_DEPTH = 100
# A message, or a field, up to this size is read, and hashed, whole.
WHOLE_BYTES = 1 << 16
SHOWN_BYTES = 1 << 12
# Of large messages, which are walked through field by field.
MAX_FIELDS = 4_000_000
# Any tensor outside of the file has it.
LOCATION = b"location"


@dataclass(frozen=True, slots=True)
class Outline:
    """What a model file says beside its weights: ``locations`` of those that lie in other files, and a ``digest`` of
    all that is not large: names, shapes, nodes, small tensors, and the beginnings of large ones.
    """

    locations: tuple[str, ...]
    digest: str


def outline_of(read: Read, byte_size: int) -> Outline:
    """Of a model file. Reads little of what is large. Raises ``Malformed``."""
    digest = hashlib.sha256()
    locations: dict[str, None] = {}
    count = 0

    def look(kind: str, begin: int, end: int, depth: int) -> None:
        nonlocal count
        if end - begin <= WHOLE_BYTES:
            data = read(begin, end - begin)
            digest.update(data)
            if LOCATION in data:
                locations.update(dict.fromkeys(_locations(kind, data, depth)))
            return
        for field in fields(read, begin, end):
            count += 1
            if count > MAX_FIELDS:
                raise Malformed(f"more than {MAX_FIELDS} fields")
            digest.update(b"%d:%d;" % (field.number, field.end - field.value))
            within = inside(kind, field.number, field.wire_type, depth)
            if within is not None:
                look(within, field.value, field.end, depth + 1)
            else:
                size = field.end - field.value
                digest.update(read(field.value, size if size <= WHOLE_BYTES else SHOWN_BYTES))

    look("model", 0, byte_size, 0)
    return Outline(tuple(locations), digest.hexdigest())


def _locations(kind: str, data: bytes, depth: int) -> Iterator[str]:
    for tensor in _tensors(kind, data, depth):
        location = external_data(tensor).get("location")
        if location is not None:
            yield location


def _tensors(kind: str, data: bytes, depth: int) -> Iterator[bytes]:
    if kind == "tensor":
        yield data
        return
    for field in fields(reader_of(data), 0, len(data)):
        within = inside(kind, field.number, field.wire_type, depth)
        if within is not None and LOCATION in data[field.value : field.end]:
            yield from _tensors(within, data[field.value : field.end], depth + 1)


def inside(kind: str, number: int, wire_type: int, depth: int) -> str | None:
    """What message, with tensors in it, a field of another one is. Raises ``Malformed`` for too many in one another."""
    if wire_type != LENGTH_DELIMITED or kind == "tensor":
        return None
    if depth > MAX_DEPTH:
        raise Malformed(f"graphs inside one another, over {MAX_DEPTH} deep")
    return _INSIDE[kind].get(number)


def external_data(tensor: bytes) -> dict[str, str]:
    """What a tensor says of where its bytes are: nothing, where they are in the model."""
    return dict(
        _entry(tensor[field.value : field.end])
        for field in fields(reader_of(tensor), 0, len(tensor))
        if field.number == EXTERNAL_DATA and field.wire_type == LENGTH_DELIMITED
    )


def _entry(data: bytes) -> tuple[str, str]:
    parts = {field.number: data[field.value : field.end] for field in fields(reader_of(data), 0, len(data))}
    try:
        return parts.get(KEY, b"").decode(), parts.get(VALUE, b"").decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"external data that is no text: {error}") from None
