"""The record in which a request is answered: where in its slot the result lies, and what it is. Pure arithmetic."""

from __future__ import annotations

import struct
from typing import NamedTuple

from tensord._errors import ValidationFailed

from .packed import BYTE_OF_DIMENSIONS, BYTE_OF_DTYPE, to_packed_shape, unpack_type

DONE = 5
FAILED = 6
RESULT_ALIGNMENT = 8

# From byte 16 on: what is before are the two words that are stored one by one.
RECORD_START = 16
_RECORD = struct.Struct("<2Q4B28s8Q")
_ZEROS = bytes(28)


class Answer(NamedTuple):
    """``offset`` counts from the first byte of the slot; ``kind`` is ``DONE`` or ``FAILED``."""

    kind: int
    dtype: str
    shape: tuple[int, ...]
    offset: int
    byte_size: int


def to_record(answer: Answer) -> bytes:
    """What stands in a record from ``RECORD_START`` on. Raises ``ValidationFailed`` for too many dimensions."""
    sizes = to_packed_shape(answer.shape)
    dimensions = BYTE_OF_DIMENSIONS[len(answer.shape)]
    return _RECORD.pack(
        answer.offset, answer.byte_size, BYTE_OF_DTYPE[answer.dtype], dimensions, answer.kind, 0, _ZEROS, *sizes
    )


def parse_record(raw: bytes, slot_bytes: int) -> Answer:
    """What a record says, from ``RECORD_START`` on, of a slot of ``slot_bytes``. Raises ``ValidationFailed``."""
    offset, byte_size, dtype_byte, dimensions_byte, kind, zero, zeros, *_ = _RECORD.unpack(raw)
    if kind not in (DONE, FAILED) or zero != 0 or zeros != _ZEROS:
        raise ValidationFailed(f"Cannot read an answer: its kind is {kind}, want {DONE} or {FAILED}, and zeros")
    if offset % RESULT_ALIGNMENT != 0 or offset + byte_size > slot_bytes:
        raise ValidationFailed(
            f"Cannot read an answer: {byte_size} bytes at {offset} are no place in a slot of {slot_bytes} bytes"
        )
    dtype, shape = unpack_type(dtype_byte, dimensions_byte, raw[64 - RECORD_START :], byte_size)
    return Answer(kind, dtype, shape, offset, byte_size)
