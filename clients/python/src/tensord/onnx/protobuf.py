"""The wire format of Protocol Buffers, as much of it as it takes to find fields and to write some anew. What they mean
is ``model_proto.py``'s. See protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
# A tag and a length, each a varint of 64 bits at most.
VARINT_BYTES = 10

# The bytes from an offset on, up to so many; fewer at the end.
Read = Callable[[int, int], bytes]


class Malformed(Exception):
    """What was read is no protobuf, or none of this kind."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its tag begins at ``begin``, its value lies from ``value`` to ``end``."""

    number: int
    wire_type: int
    begin: int
    value: int
    end: int


def fields(read: Read, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message from ``begin`` to ``end``. Raises ``Malformed``."""
    at = begin
    while at < end:
        head = read(at, 2 * VARINT_BYTES)
        tag, used = read_varint(head, 0)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH_DELIMITED:
            length, used = read_varint(head, used)
            value, stop = at + used, at + used + length
        elif wire_type == VARINT:
            value, stop = at + used, at + read_varint(head, used)[1]
        elif wire_type in (FIXED64, FIXED32):
            value, stop = at + used, at + used + (8 if wire_type == FIXED64 else 4)
        else:
            raise Malformed(f"a field of wire type {wire_type} at byte {at}")
        if number == 0 or stop > end:
            raise Malformed(
                f"a field at byte {at} that {'has no number' if number == 0 else 'ends behind its message'}"
            )
        yield Field(number, wire_type, at, value, stop)
        at = stop


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint's value, and where it ends. Raises ``Malformed``."""
    value = 0
    for index in range(VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise Malformed("a number that does not end")


def to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def to_field(number: int, value: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return to_varint(number << 3 | LENGTH_DELIMITED) + to_varint(len(value)) + value


def reader_of(data: bytes) -> Read:
    """``Read`` of bytes in hand."""
    return lambda at, size: data[at : at + size]
