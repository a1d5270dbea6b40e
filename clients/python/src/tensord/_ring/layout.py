"""Where things are in a ring, and what its generations mean: arithmetic that owner and readers share.

``docs/protocol.md`` has the same, and ``tests/vectors/ring-layout-2.json`` its test vectors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tensord._arguments.quoting import quote
from tensord._errors import FeatureUnavailable, ValidationFailed

MAX_SLOTS = 1 << 12
GENERATIONS = "generations"
SLOTS = "slots"
BELL = "bell"
# The header of a ring is padded to this, and its generations, the tensor with the larger elements, come first.
WORDS_START = 4096
WORD_BYTES = 8
# Slots begin where any element may.
SLOT_ALIGNMENT = 8
# The owner write-locks it for as long as the ring lives: beside the bytes of leases and writers.
OWNER_BYTE = (1 << 62) + (1 << 60)

# What the bell counts with, so that no line of the processor's cache is two sides'.
LINE_BYTES = 64
ENTRY_BYTES = 128
LAYOUT = 2
# Entries are counted modulo 2^32.
COUNT_MASK = (1 << 32) - 1
_MAGIC = b"TSB2"
# From the base on.
TAIL = 64
WANTED = 128
_ENTRIES = 256
_HEADER = struct.Struct("<4s3IQ")
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


@dataclass(frozen=True)
class BellLayout:
    """Where the bell of a ring has what, in bytes from the start of the file. ``entries`` is a power of two."""

    slots: int
    slot_bytes: int
    entries: int = field(init=False)
    first_slot: int = field(init=False)
    byte_offset: int = field(init=False)
    byte_size: int = field(init=False)
    base: int = field(init=False)
    tail: int = field(init=False)
    wanted: int = field(init=False)
    first_entry: int = field(init=False)
    first_record: int = field(init=False)

    def __post_init__(self) -> None:
        entries = 2
        while entries < 2 * self.slots:
            entries *= 2
        first_slot = WORDS_START + WORD_BYTES * self.slots
        byte_offset = first_slot + self.slots * self.slot_bytes
        base = to_base(byte_offset)
        values = {
            "entries": entries,
            "first_slot": first_slot,
            "byte_offset": byte_offset,
            "byte_size": _ENTRIES + LINE_BYTES + ENTRY_BYTES * (entries + self.slots),
            "base": base,
            "tail": base + TAIL,
            "wanted": base + WANTED,
            "first_entry": base + _ENTRIES,
            "first_record": base + _ENTRIES + ENTRY_BYTES * entries,
        }
        for name, value in values.items():
            # Numbers, and not computed anew: messages ask for them all the time.
            object.__setattr__(self, name, value)

    def to_header(self) -> bytes:
        """What stands at ``base``."""
        return _HEADER.pack(_MAGIC, LAYOUT, self.slots, self.entries, self.slot_bytes)


HEADER_BYTES = _HEADER.size


def to_base(byte_offset: int) -> int:
    """Where a bell counts from that is a tensor at ``byte_offset`` of its file."""
    return -(-byte_offset // LINE_BYTES) * LINE_BYTES


def count_lost(seen: int, tail: int, entries: int) -> int:
    """How many entries from ``seen`` on are gone at that tail: of the oldest one may be written at this moment."""
    return max(0, (tail - seen & COUNT_MASK) - (entries - 1))


def first_seen(tail: int, entries: int) -> int:
    """Where a receiver begins that misses nothing that is still there."""
    return tail - (entries - 1) & COUNT_MASK


def parse_header(raw: bytes, byte_offset: int, byte_size: int, region: str) -> BellLayout:
    """The layout that a bell says of itself, which is the tensor at ``byte_offset`` of ``byte_size`` bytes. Raises
    ``ValidationFailed`` if it contradicts that, ``FeatureUnavailable`` if it is a later one.
    """
    magic, layout, slots, entries, slot_bytes = _HEADER.unpack(raw)
    refused = f"Cannot receive from ring {region}"
    if magic != _MAGIC or layout < LAYOUT:
        raise ValidationFailed(
            f"{refused}: what the reference refers to begins with {quote(magic)} and layout {layout}, want {_MAGIC!r} "
            f"and {LAYOUT}",
            hint="send ring.ref(), which refers to the ring's bell, and not the reference of a slot",
        )
    if layout > LAYOUT:
        raise FeatureUnavailable(
            f"{refused}: its bell has layout {layout}, want {LAYOUT}",
            hint="is there a newer version of the package? References of its slots are opened as ever: client.open",
        )
    if 1 <= slots <= MAX_SLOTS and slot_bytes % SLOT_ALIGNMENT == 0 and 0 < slot_bytes < 1 << 53:
        found = BellLayout(slots, slot_bytes)
        if (found.entries, found.byte_offset, found.byte_size) == (entries, byte_offset, byte_size):
            return found
    raise ValidationFailed(
        f"{refused}: its bell says {slots} slots of {slot_bytes} bytes and {entries} entries, which is no ring with a "
        f"bell of {byte_size} bytes at {byte_offset}"
    )
