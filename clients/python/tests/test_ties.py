"""Tensors that share memory share it in the region: aliases. What shares it otherwise is copied apart, and said."""

from __future__ import annotations

import array as arrays
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tensord
from tensord._region.copy import to_sources
from tensord._region.ties import tie

FLAT = np.arange(24, dtype=np.float32)
PLAIN: dict[str, tuple[str, int]] = {}


def ties_of(data: dict[str, Any]) -> dict[str, tuple[str, int]]:
    tied = tie(to_sources(data))
    assert [source.name for source in tied] == list(data)
    return {source.name: (source.alias_of, source.alias_byte_offset) for source in tied if source.alias_of is not None}


def test_one_array_under_two_names_is_the_alias_of_the_first() -> None:
    w = FLAT.reshape(4, 6)
    assert ties_of({"w": w, "head": w, "again": w[:]}) == {"head": ("w", 0), "again": ("w", 0)}
    assert ties_of({"flat": FLAT, "shaped": w}) == {"shaped": ("flat", 0)}


def test_a_view_inside_another_array_is_an_alias_wherever_it_stands_in_the_call() -> None:
    views = {
        "row": FLAT.reshape(4, 6)[2],
        "last": FLAT[23:],
        "scalar": FLAT[5:6].reshape(()),
        "whole": FLAT,
        "inner": FLAT[2:4],
    }
    assert ties_of(views) == {
        "row": ("whole", 48),
        "last": ("whole", 92),
        "scalar": ("whole", 20),
        "inner": ("whole", 8),
    }
    # Each lies in the one that has bytes, not in another alias.
    nested = {"a": FLAT[2:8], "b": FLAT[3:6], "w": FLAT}
    assert ties_of(nested) == {"a": ("w", 8), "b": ("w", 12)}


def test_what_shares_no_memory_is_tied_to_nothing() -> None:
    assert ties_of({"a": FLAT[:12], "b": FLAT[12:], "c": FLAT.copy(), "d": [1.0, 2.0]}) == PLAIN
    # Neighbours, columns of one array, and what has no bytes at all.
    columns = np.zeros((100, 30))
    assert ties_of({f"c{at}": columns[:, at : at + 1] for at in range(30)}) == PLAIN
    assert ties_of({"even": FLAT[::2], "odd": FLAT[1::2]}) == PLAIN
    assert ties_of({"none": FLAT[:0], "w": FLAT, "nothing": FLAT[:0], "empty": np.zeros((3, 0), np.float32)}) == PLAIN


def test_memory_is_what_counts_and_not_the_kind_of_object() -> None:
    raw = bytearray(64)
    read_only = FLAT.view()
    read_only.flags.writeable = False
    numbers = arrays.array("d", range(8))
    assert ties_of({"whole": memoryview(raw), "part": memoryview(raw)[8:24]}) == {"part": ("whole", 8)}
    assert ties_of({"w": FLAT, "locked": read_only}) == {"locked": ("w", 0)}
    assert ties_of({"numbers": numbers, "view": np.frombuffer(numbers)}) == {"view": ("numbers", 0)}
    assert ties_of({"m": np.ma.masked_array(FLAT), "w": FLAT}) == {"w": ("m", 0)}
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is an extra")
    brain = np.zeros(8, ml_dtypes.bfloat16)
    bits = brain[2:].view(np.uint16)
    assert ties_of({"w": brain, "head": brain, "bits": bits}) == {"head": ("w", 0), "bits": ("w", 4)}


def test_bytes_under_another_type_are_an_alias_where_its_elements_are_aligned() -> None:
    raw = np.zeros(24, np.uint8)
    assert ties_of({"raw": raw, "words": raw.view("<u4"), "half": raw[2:4].view(np.float16)}) == {
        "words": ("raw", 0),
        "half": ("raw", 2),
    }
    # The first of the call has the bytes, of several that are as long.
    assert ties_of({"words": raw.view("<u4"), "raw": raw}) == {"raw": ("words", 0)}
    with pytest.warns(tensord.TensordWarning, match=r"'raw' and 'odd', whose elements would not be aligned\. In"):
        assert ties_of({"raw": raw, "odd": raw[1:5].view("<u4")}) == PLAIN
    with pytest.warns(tensord.TensordWarning, match="'raw' and 'wide', whose elements would not be aligned"):
        assert ties_of({"raw": raw[:23], "wide": raw[:16].view("<u8")}) == PLAIN


def test_the_same_view_twice_is_an_alias_even_if_it_has_gaps() -> None:
    turned = FLAT.reshape(4, 6).T
    spread = np.broadcast_to(np.float32(1), (3, 5))
    big = np.arange(4, dtype=">i4")
    assert ties_of({"w": turned, "head": turned[:]}) == {"head": ("w", 0)}
    assert ties_of({"a": spread, "b": spread}) == {"b": ("a", 0)}
    assert ties_of({"a": big, "b": big[:]}) == {"b": ("a", 0)}
    assert ties_of({"a": FLAT[::-1], "b": FLAT[::-1]}) == {"b": ("a", 0)}
    # And so is what is the same as an alias.
    assert ties_of({"w": FLAT, "a": FLAT[2:4], "b": FLAT[2:4]}) == {"a": ("w", 8), "b": ("w", 8)}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"a": FLAT[:10], "b": FLAT[5:15]}, "'a' and 'b', which overlap in part"),
        ({"b": FLAT[5:15], "a": FLAT[:10]}, "'a' and 'b', which overlap in part"),
        ({"w": FLAT, "q": FLAT[::2]}, "'w' and 'q', of which one is not contiguous"),
        ({"w": FLAT[2:20], "q": FLAT[::2]}, "'q' and 'w', of which one is not contiguous"),
        ({"w": FLAT, "back": FLAT[::-1]}, "'w' and 'back', of which one is not contiguous"),
        ({"w": FLAT.reshape(4, 6), "t": FLAT.reshape(4, 6).T}, "'w' and 't', of which one is not contiguous"),
        ({"q": FLAT.reshape(4, 6)[:, :4], "k": FLAT.reshape(4, 6)[:, 2:]}, "'q' and 'k', of which one is not"),
        ({"w": FLAT[:1], "all": np.broadcast_to(FLAT[:1], (7,))}, "'w' and 'all', of which one is not contiguous"),
        ({"w": FLAT, "swapped": FLAT.view(">f4")}, "'w' and 'swapped', of which one has another byte order"),
    ],
)
def test_what_shares_memory_otherwise_is_copied_apart_and_said(data: dict[str, Any], words: str) -> None:
    with pytest.warns(tensord.TensordWarning, match="are copied apart: " + words) as told:
        assert ties_of(data) == PLAIN
    assert len(told) == 1


def test_an_overlap_does_not_untie_others() -> None:
    with pytest.warns(tensord.TensordWarning, match="'a' and 'b', which overlap in part"):
        ties = ties_of({"a": FLAT[:10], "b": FLAT[5:20], "c": FLAT[12:18], "d": FLAT[1:3], "e": FLAT[20:]})
    assert ties == {"c": ("b", 28), "d": ("a", 4)}


def test_many_pairs_are_one_warning() -> None:
    data = {"w": FLAT} | {f"q{at}": FLAT[at : at + 9 : 2] for at in range(12)}
    with pytest.warns(tensord.TensordWarning, match="; and 8 more pairs") as told:
        ties_of(data)
    assert len(told) == 1


def test_a_warning_names_the_callers_line(client: tensord.Client) -> None:
    with pytest.warns(tensord.TensordWarning) as told:
        client.create("t", {"a": FLAT[:10], "b": FLAT[5:15]}, ttl=600).close()
    assert told[0].filename == __file__


def test_chance_never_ties_what_differs_and_never_leaves_a_tie_out(client: tensord.Client) -> None:
    random = np.random.default_rng(7)
    flat = random.integers(0, 256, 64, np.uint8)
    data: dict[str, npt.NDArray[Any]] = {"whole": flat}
    for at in range(60):
        begin, end = sorted(int(place) for place in random.integers(0, 65, 2))
        view = flat[begin : end : int(random.choice([1, 1, 1, 2, -1]))]
        data[f"t{at}"] = view.view("<u2") if view.flags.c_contiguous and view.nbytes % 2 == 0 and at % 3 == 0 else view
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tensord.TensordWarning)
        region = client.create("t", data, ttl=600)
    with region:
        region.seal()
        with client.attach("t") as attached:
            for name, array in data.items():
                assert np.array_equal(attached[name].numpy(), array), name
                offset = array.__array_interface__["data"][0] - flat.ctypes.data
                solid = array.flags.c_contiguous and array.nbytes > 0 and offset % array.itemsize == 0
                if solid and name != "whole":
                    assert attached[name].alias_of == "whole", name
                    assert attached[name].byte_offset == attached["whole"].byte_offset + offset, name


def test_a_region_keeps_one_copy_and_a_write_by_one_name_is_read_by_the_other(client: tensord.Client) -> None:
    table = np.arange(64_000, dtype=np.float32).reshape(1000, 64)
    with client.create("tied", {"head": table, "row": table[3], "bias": np.ones(3)}, ttl=600) as region:
        assert client.get("tied").storage.byte_size < 1.1 * table.nbytes
        assert (region["head"].alias_of, region["row"].alias_of) == (None, "head")
        assert "alias of 'head'" in repr(region["row"])
        assert np.array_equal(region["row"].numpy(), table[3])
        region["row"].numpy()[:] = 7
        assert region["head"].numpy()[3].tolist() == [7] * 64
        with region["head"].lock_write(), pytest.raises(tensord.DeadlineExceeded):
            region["row"].lock_read(timeout=0)
        region.seal(checksum=True)
        assert client.verify("tied").ok
        with client.open(region["row"].ref()) as opened:
            assert opened.numpy().tolist() == [7] * 64
        with client.attach("tied", strict=True) as attached:
            assert attached["row"].numpy().tolist() == [7] * 64


def test_a_build_keeps_its_ties(client: tensord.Client) -> None:
    with client.get_or_create("built", lambda: {"w": FLAT, "head": FLAT}) as region:
        assert region["head"].alias_of == "w"
        assert np.shares_memory(region["head"].numpy(), region["w"].numpy())
        assert region["head"].numpy().tolist() == FLAT.tolist()
