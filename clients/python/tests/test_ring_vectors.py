"""The test vectors of rings with a bell (``docs/protocol.md``, "The bell"), which all clients read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import REPOSITORY

import tensord
from tensord._ring import layout
from tensord._ring.answer_record import RECORD_START, Answer, parse_record, to_record
from tensord._ring.packed import (
    BYTE_OF_DIMENSIONS,
    BYTE_OF_DTYPE,
    DIMENSIONS_OF_BYTE,
    DTYPE_OF_BYTE,
    Packed,
    pack,
    to_mark,
    unpack,
)
from tensord._tensor.dtype import is_dtype

VECTORS: dict[str, Any] = json.loads((REPOSITORY / "tests/vectors/ring-layout-2.json").read_text())


def _to_packed(case: dict[str, Any]) -> Packed:
    return Packed(
        case["dtype"],
        tuple(case["shape"]),
        case["kind"],
        case["generation"],
        case["byte_offset"],
        case["byte_size"],
        int(case["dev"]),
        int(case["ino"]),
        to_mark(case["region"]),
    )


@pytest.mark.parametrize("case", VECTORS["packed"], ids=lambda case: case["note"])
def test_a_packed_reference_is_as_the_vectors_have_it(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["hex"])
    assert pack(_to_packed(case)) == raw
    assert unpack(raw) == _to_packed(case)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["note"])
def test_what_is_no_packed_reference_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(tensord.ValidationFailed, match=r"Cannot (read a packed reference|have)"):
        unpack(bytes.fromhex(case["hex"]))


def test_every_dtype_has_a_byte_and_no_flip_of_a_bit_makes_another() -> None:
    assert VECTORS["dtype_bytes"] == BYTE_OF_DTYPE
    assert VECTORS["dimension_bytes"] == BYTE_OF_DIMENSIONS
    assert all(is_dtype(dtype) for dtype in BYTE_OF_DTYPE)
    for known in (DTYPE_OF_BYTE, DIMENSIONS_OF_BYTE):
        for byte in known:
            assert not {byte ^ 1 << bit for bit in range(8)} & set(known)


def test_no_flip_of_a_bit_is_another_reference_of_the_ring() -> None:
    ring = VECTORS["ring"]
    of_ring = (int(ring["dev"]), int(ring["ino"]), to_mark(ring["region"]))
    rings = layout.BellLayout(ring["slots"], ring["slot_bytes"])
    raw = bytes.fromhex(VECTORS["packed"][0]["hex"])
    generation = VECTORS["packed"][0]["generation"]
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = unpack(bytes(flipped))
        except tensord.ValidationFailed:
            continue
        # Only what names the tensor's place or its ring is left, and that shows.
        start = rings.first_slot + found.generation % layout.MAX_SLOTS * rings.slot_bytes
        assert found[6:] != of_ring or found.byte_offset != start or found.generation != generation, bit


def test_a_regions_mark_is_as_the_vectors_have_it() -> None:
    for case in VECTORS["region_marks"]:
        assert to_mark(case["region"]).hex() == case["hex"]
    assert int(VECTORS["owner_byte"]) == layout.OWNER_BYTE


@pytest.mark.parametrize("case", VECTORS["geometry"], ids=lambda case: f"{case['slots']} slots")
def test_a_bell_lies_as_the_vectors_have_it(case: dict[str, Any]) -> None:
    made = layout.BellLayout(case["slots"], case["slot_bytes"])
    assert (made.entries, made.byte_offset, made.byte_size) == (
        case["entries"],
        case["bell_byte_offset"],
        case["bell_byte_size"],
    )
    assert (made.base, made.tail, made.wanted) == (case["base"], case["tail"], case["wanted"])
    assert (made.first_entry, made.first_record) == (case["first_entry"], case["first_record"])
    assert made.first_entry + 128 * (made.entries - 1) == case["last_entry"]
    assert made.first_record + 128 * (made.slots - 1) == case["last_record"]
    assert made.to_header().ljust(64, b"\0").hex() == case["header"]
    assert layout.parse_header(made.to_header(), made.byte_offset, made.byte_size, "reg_x") == made


def test_a_header_that_contradicts_itself_is_refused() -> None:
    made = layout.BellLayout(4, 4096)
    header = made.to_header()
    for bit in range(8 * len(header)):
        flipped = bytearray(header)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((tensord.ValidationFailed, tensord.FeatureUnavailable)):
            layout.parse_header(bytes(flipped), made.byte_offset, made.byte_size, "reg_x")
    with pytest.raises(tensord.FeatureUnavailable, match="its bell has layout 3, want 2"):
        layout.parse_header(header[:4] + b"\3\0\0\0" + header[8:], made.byte_offset, made.byte_size, "reg_x")
    for byte_offset, byte_size in ((made.byte_offset + 8, made.byte_size), (made.byte_offset, made.byte_size + 128)):
        with pytest.raises(tensord.ValidationFailed, match="which is no ring with a bell"):
            layout.parse_header(header, byte_offset, byte_size, "reg_x")


@pytest.mark.parametrize("case", VECTORS["records"]["items"], ids=lambda case: case["note"])
def test_a_record_is_as_the_vectors_have_it(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["hex"])[RECORD_START:]
    slot_bytes = VECTORS["records"]["slot_bytes"]
    if not case["valid"]:
        with pytest.raises(tensord.ValidationFailed):
            parse_record(raw, slot_bytes)
        return
    answer = Answer(case["kind"], case["dtype"], tuple(case["shape"]), case["offset_in_slot"], case["byte_size"])
    assert to_record(answer) == raw
    assert parse_record(raw, slot_bytes) == answer


def test_entries_are_counted_as_the_vectors_have_it() -> None:
    for case in VECTORS["counting"]["items"]:
        seen, tail, entries = case["seen"], case["tail"], case["entries"]
        lost = layout.count_lost(seen, tail, entries)
        assert lost == case["lost"]
        assert (seen + lost) % (1 << 32) == case["next"]
        assert layout.first_seen(tail, entries) == case["begin"]
