"""Where things are in a ring, and what its generations mean: arithmetic that owner and readers share.

``docs/protocol.md`` has the same with test vectors.
"""

from __future__ import annotations

import struct

MAX_SLOTS = 1 << 12
GENERATIONS = "generations"
SLOTS = "slots"
# The header of a ring is padded to this, and its generations, the tensor with the larger elements, come first.
WORDS_START = 4096
WORD_BYTES = 8
# Slots begin where any element may.
SLOT_ALIGNMENT = 8

_WORD = struct.Struct("<Q")


def to_generation(index: int, count: int) -> int:
    """The word of slot ``index`` when it was raised ``count`` times; so it says by itself which slot it is of."""
    return count * MAX_SLOTS + index


def word_start(generation: int) -> int:
    """The byte of the file at which the word of that generation's slot is."""
    return WORDS_START + WORD_BYTES * (generation % MAX_SLOTS)


def parse_word(raw: bytes) -> int:
    """The word in 8 bytes of the file; 0, which is no generation of a reference, if the file has no such bytes."""
    return int(_WORD.unpack(raw)[0]) if len(raw) == WORD_BYTES else 0
