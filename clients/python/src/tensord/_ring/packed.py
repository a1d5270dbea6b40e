"""The packed reference: 128 bytes that name a tensor in a slot to who has its ring open (``docs/protocol.md``, "The
bell"). Pure arithmetic; whoever reads one copies it first, since others may write there at any time.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, NoReturn

from tensord._arguments.kinds import MAX_BYTES
from tensord._arguments.quoting import quote
from tensord._errors import ValidationFailed
from tensord._tensor.dtype import byte_size_of

PACKED_BYTES = 128
MAX_PACKED_DIMENSIONS = 8

# What an entry is for.
TENSOR = 0
REQUEST = 3

_MAGIC = b"TSR1"
# Magic, dtype, dimensions, kind, zero; generation, byte_offset, byte_size; dev, ino; region; shape.
_PACKED = struct.Struct("<4sBBBB3Q2Q16s8Q")
# generation and byte_offset: what the packed references of one kind of tensor differ in.
PLACE = struct.Struct("<2Q")
PLACE_AT = 8
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}

PackedBytes = bytes

# Never renumbered. 0 is none, so that fresh memory is no reference.
_CODES = {
    "BOOL": 1,
    "F4": 2,
    "F6_E2M3": 3,
    "F6_E3M2": 4,
    "U8": 5,
    "I8": 6,
    "F8_E5M2": 7,
    "F8_E4M3": 8,
    "F8_E8M0": 9,
    "F8_E4M3FNUZ": 10,
    "F8_E5M2FNUZ": 11,
    "I16": 12,
    "U16": 13,
    "F16": 14,
    "BF16": 15,
    "I32": 16,
    "U32": 17,
    "F32": 18,
    "C64": 19,
    "F64": 20,
    "I64": 21,
    "U64": 22,
}


def _with_parity(value: int) -> int:
    """With bit 7 set where it makes the number of set bits even: no flip of one bit is another value."""
    return value | (value.bit_count() & 1) << 7


BYTE_OF_DTYPE = {dtype: _with_parity(code) for dtype, code in _CODES.items()}
DTYPE_OF_BYTE = {byte: dtype for dtype, byte in BYTE_OF_DTYPE.items()}
BYTE_OF_DIMENSIONS = [_with_parity(count) for count in range(MAX_PACKED_DIMENSIONS + 1)]
DIMENSIONS_OF_BYTE = {byte: count for count, byte in enumerate(BYTE_OF_DIMENSIONS)}


class Packed(NamedTuple):
    """What a packed reference says. ``kind`` is ``TENSOR`` or ``REQUEST``; ``region`` the 16 bytes of its mark."""

    dtype: str
    shape: tuple[int, ...]
    kind: int
    generation: int
    byte_offset: int
    byte_size: int
    dev: int
    ino: int
    region: bytes


def to_mark(region: str) -> bytes:
    """The first 128 bits of a region's id."""
    number = 0
    for character in region.removeprefix("reg_"):
        number = number << 5 | _DIGITS[character]
    return (number >> 2).to_bytes(16, "big")


def pack(packed: Packed) -> bytes:
    """The 128 bytes. Raises ``ValidationFailed`` if it has too many dimensions."""
    sizes = to_packed_shape(packed.shape)
    return _PACKED.pack(
        _MAGIC,
        BYTE_OF_DTYPE[packed.dtype],
        BYTE_OF_DIMENSIONS[len(packed.shape)],
        packed.kind,
        0,
        *packed[3:6],
        packed.dev,
        packed.ino,
        packed.region,
        *sizes,
    )


def unpack(raw: bytes) -> Packed:
    """What 128 bytes say, if they agree with each other. Raises ``ValidationFailed``."""
    if len(raw) != PACKED_BYTES:
        _refuse("it", f"{len(raw)} bytes", f"{PACKED_BYTES} bytes")
    magic, dtype_byte, dimensions_byte, kind, zero, *numbers, dev, ino, region = _PACKED.unpack(raw)[:11]
    if magic != _MAGIC:
        _refuse("its beginning", magic, _MAGIC)
    if kind not in (TENSOR, REQUEST) or zero != 0:
        _refuse("its kind", [kind, zero], f"{TENSOR} or {REQUEST}, and 0")
    generation, byte_offset, byte_size = numbers
    if max(numbers) > MAX_BYTES:
        _refuse("a number", max(numbers), f"at most {MAX_BYTES}")
    dtype, shape = unpack_type(dtype_byte, dimensions_byte, raw[64:], byte_size)
    return Packed(dtype, shape, kind, generation, byte_offset, byte_size, dev, ino, region)


def to_packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The 8 sizes of a shape. Raises ``ValidationFailed``."""
    if len(shape) > MAX_PACKED_DIMENSIONS:
        raise ValidationFailed(
            f"Cannot send a tensor of {len(shape)} dimensions, want at most {MAX_PACKED_DIMENSIONS}",
            hint="reshape it, or put() it and send the reference, which has as many as there are",
        )
    return shape + (0,) * (MAX_PACKED_DIMENSIONS - len(shape))


_SIZES = struct.Struct("<8Q")


def unpack_type(dtype_byte: int, dimensions_byte: int, raw_shape: bytes, byte_size: int) -> tuple[str, tuple[int, ...]]:
    """dtype and shape, which make ``byte_size``. Raises ``ValidationFailed``."""
    dtype = DTYPE_OF_BYTE.get(dtype_byte)
    if dtype is None:
        _refuse("dtype", dtype_byte, "a code with its parity")
    dimensions = DIMENSIONS_OF_BYTE.get(dimensions_byte)
    if dimensions is None:
        _refuse("dimensions", dimensions_byte, f"0 to {MAX_PACKED_DIMENSIONS} with parity")
    sizes = _SIZES.unpack(raw_shape)
    if any(sizes[dimensions:]) or max(sizes) > MAX_BYTES:
        _refuse("shape", sizes, f"{dimensions} sizes of at most {MAX_BYTES}, and zeros")
    shape = sizes[:dimensions]
    if byte_size_of(dtype, shape) != byte_size:
        _refuse("byte_size", byte_size, f"{byte_size_of(dtype, shape)}, which its shape and dtype make")
    return dtype, shape


def _refuse(name: str, value: object, want: object) -> NoReturn:
    raise ValidationFailed(f"Cannot read a packed reference: {name} is {quote(value)}, want {want}")
