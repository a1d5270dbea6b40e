"""Mappings live as long as what was taken from them, and change between writing and reading in place."""

from __future__ import annotations

import copy
import ctypes
import errno
import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensord
from tensord._mapping import lease, libc
from tensord._mapping.attach import Place, map_place, remap_place
from tensord._mapping.mapping import Access, View

MakePlace = Callable[..., Place]
LARGE = libc.LARGE_PAGE_SIZE


def _map(place: Place, access: Access = Access.PRIVATE) -> View:
    return map_place(place, 0, place.byte_size, access)


def _is_mapped(path: str) -> bool:
    return f" {path}\n" in Path("/proc/self/maps").read_text()


def test_a_mapping_goes_with_the_last_view(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place)
    array = view.bytes(256, 512).view(np.uint32)[::2].reshape(8, 8).T
    expected = array.copy()
    view.close()
    assert view.closed
    assert _is_mapped(place.path)
    assert lease.is_leased(place.path)
    assert np.array_equal(array, expected)
    del array
    assert not _is_mapped(place.path)
    assert not lease.is_leased(place.path)


def test_a_mapping_without_views_goes_at_once(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place)
    view.close()
    view.close()
    assert not _is_mapped(place.path)


def test_a_mapping_that_is_dropped_goes_without_close(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place)
    assert _is_mapped(place.path)
    del view
    assert not _is_mapped(place.path)


def test_a_torch_tensor_keeps_the_mapping(make_place: MakePlace) -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    place = make_place()
    view = _map(place)
    anchor, start = view.buffer()
    tensor = torch.frombuffer(anchor, dtype=torch.uint8, count=256, offset=256 - start)[10:20]
    del anchor
    view.close()
    assert tensor.tolist() == list(range(10, 20))
    assert _is_mapped(place.path)
    del tensor
    assert not _is_mapped(place.path)


def test_a_closed_mapping_raises(make_place: MakePlace) -> None:
    view = _map(make_place())
    view.close()
    with pytest.raises(tensord.Closed):
        view.bytes(0, 1)
    with pytest.raises(tensord.Closed):
        view.buffer()


def test_a_mapping_in_the_middle_of_a_file_counts_from_its_start(make_place: MakePlace) -> None:
    content = np.random.default_rng(1).integers(0, 256, 20_000, np.uint8)
    place = make_place(content.tobytes())
    view = map_place(place, 9_000, 500, Access.PRIVATE)
    assert np.array_equal(view.bytes(9_000, 500), content[9_000:9_500])
    assert np.array_equal(view.bytes(9_100, 7), content[9_100:9_107])


def test_no_bytes_at_the_very_end_can_be_mapped(make_place: MakePlace) -> None:
    place = make_place(bytes(8192))
    view = map_place(place, 8192, 0, Access.PRIVATE)
    assert view.bytes(8192, 0).shape == (0,)
    assert lease.is_leased(place.path)


def test_reads_see_what_others_write_later(make_place: MakePlace) -> None:
    place = make_place()
    writer, reader = _map(place, Access.WRITE), _map(place)
    before = reader.bytes(0, 8192)
    assert before[5] == 5
    writer.bytes(0, 8192)[5] = 99
    assert before[5] == 99


def test_arrays_of_a_reader_cannot_be_written_nor_made_writable_again(make_place: MakePlace) -> None:
    for access in (Access.PRIVATE, Access.STRICT):
        array = _map(make_place(), access).bytes(0, 10)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_remap_keeps_addresses_and_moves_the_locks(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place, Access.WRITE)
    array = view.hand_out(view.bytes(0, 100))
    address = array.ctypes.data
    array[:] = 7
    assert lease.has_writer(place.path)

    remap_place(place, view.mapping, Access.PRIVATE)
    assert array.ctypes.data == address == np.frombuffer(view.buffer()[0], np.uint8).ctypes.data
    assert [each.flags.writeable for each in (array, view.bytes(0, 100))] == [False, False]
    assert np.all(array == 7)
    assert lease.is_leased(place.path)
    assert not lease.has_writer(place.path)

    remap_place(place, view.mapping, Access.WRITE)
    assert [each.flags.writeable for each in (array, view.bytes(0, 100))] == [True, True]
    assert lease.has_writer(place.path)
    array[:] = 8
    assert Path(place.path).read_bytes()[:100] == bytes([8] * 100)


def test_a_view_that_was_not_handed_out_writes_to_itself_after_a_remap(make_place: MakePlace) -> None:
    place = make_place(bytes(8192))
    view = _map(place, Access.WRITE)
    own = view.hand_out(view.bytes(0, 100))[10:20]
    remap_place(place, view.mapping, Access.PRIVATE)
    own[:] = 1
    assert Path(place.path).read_bytes() == bytes(8192)


def test_an_array_that_the_caller_locked_stays_locked(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place, Access.WRITE)
    locked, free = (view.hand_out(view.bytes(0, 10)) for _ in "ab")
    locked.flags.writeable = False
    remap_place(place, view.mapping, Access.PRIVATE)
    remap_place(place, view.mapping, Access.WRITE)
    assert (locked.flags.writeable, free.flags.writeable) == (False, True)


def test_arrays_that_were_handed_out_are_not_kept_alive(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place, Access.WRITE)
    for _ in range(100):
        view.hand_out(view.bytes(0, 10))
    gc.collect()
    assert not view.mapping._handed_out
    keep = view.hand_out(view.bytes(0, 10))
    remap_place(place, view.mapping, Access.PRIVATE)
    view.close()
    del keep
    assert not _is_mapped(place.path)


def test_a_mapping_is_neither_copied_nor_pickled(make_place: MakePlace) -> None:
    view = _map(make_place())
    for thing in (view, view.mapping):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                attempt(thing)


def test_a_part_keeps_the_pages_and_lets_go_of_them_by_itself(make_place: MakePlace) -> None:
    place = make_place()
    whole = _map(place)
    part = whole.part(5000, 100)
    array = part.bytes(5010, 5)
    whole.close()
    assert array.tolist() == [byte % 256 for byte in range(5010, 5015)]
    part.close()
    assert _is_mapped(place.path)
    with pytest.raises(tensord.Closed):
        part.bytes(5010, 5)
    with pytest.raises(tensord.Closed):
        whole.part(5000, 100)
    del array
    assert not _is_mapped(place.path)


def test_an_empty_part_is_a_part_too(make_place: MakePlace) -> None:
    assert _map(make_place()).part(100, 0).bytes(100, 0).shape == (0,)


def test_a_part_follows_when_its_mapping_is_mapped_anew(make_place: MakePlace) -> None:
    place = make_place()
    whole = _map(place, Access.WRITE)
    part = whole.part(5000, 100)
    array = part.hand_out(part.bytes(5000, 100))
    remap_place(place, part.mapping, Access.PRIVATE)
    assert (part.access, array.flags.writeable) == (Access.PRIVATE, False)
    assert not part.bytes(5000, 100).flags.writeable
    assert not lease.has_writer(place.path)


def test_a_mapping_whose_pages_are_gone_is_not_mapped_anew(make_place: MakePlace) -> None:
    place = make_place()
    view = _map(place, Access.WRITE)
    mapping = view.mapping
    view.close()
    with pytest.raises(tensord.Closed):
        remap_place(place, mapping, Access.PRIVATE)
    assert not lease.is_leased(place.path)


def _place_of(view: View) -> int:
    return ctypes.addressof(view.buffer()[0])


@pytest.mark.parametrize("access", list(Access))
def test_a_mapping_lies_in_its_large_pages_as_the_file_does(make_place: MakePlace, access: Access) -> None:
    place = make_place(bytes(3 * LARGE + 5))
    before = _maps()
    views = [map_place(place, 0, place.byte_size, access) for _ in "abc"]
    views += [map_place(place, LARGE + offset, LARGE + 1, access) for offset in (0, 4096, LARGE - 4096, 5000)]
    for view in views:
        assert (_place_of(view) - view.buffer()[1]) % LARGE == 0
    places = [_place_of(view) for view in views]
    assert len(set(places)) == len(views)
    for view in views:
        view.close()
    del view
    views.clear()
    assert [_left_around(address, place, before) for address in places] == [[]] * len(places)


def test_a_mapping_that_cannot_be_placed_is_anywhere(make_place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place(bytes(range(256)) * (LARGE // 128))
    library = libc._library()

    class Refusing:
        """Of the library, with an mmap that puts nothing where the caller wants it."""

        munmap = library.munmap
        fails = ""

        def mmap(self, address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> Any:
            if (self.fails == "reserve" and fd == -1) or (self.fails == "put" and flags & libc.MAP_FIXED):
                ctypes.set_errno(errno.ENOMEM)
                return -1 % (1 << 64)
            # Never where a large page begins.
            return library.mmap(
                address and address + 4096 * (not flags & libc.MAP_FIXED), length, prot, flags, fd, offset
            )

    refusing = Refusing()
    monkeypatch.setattr(libc, "_library", lambda: refusing)
    monkeypatch.setattr(libc, "_last_place", [1 << 45])
    before = _maps()
    for refusing.fails in ("reserve", "put"):
        view = _map(place)
        assert view.bytes(0, 256).tolist() == list(range(256))
        address = _place_of(view)
        assert address % LARGE != 0
        view.close()
        assert _left_around(address, place, before) == []


def test_a_remap_stays_in_its_large_pages(make_place: MakePlace) -> None:
    place = make_place(bytes(2 * LARGE))
    view = _map(place, Access.WRITE)
    view.bytes(0, 1)[0] = 9
    address = _place_of(view)
    remap_place(place, view.mapping, Access.PRIVATE)
    assert _place_of(view) == address
    assert address % LARGE == 0
    assert view.bytes(0, 2).tolist() == [9, 0]


def _left_around(address: int, place: Place, before: set[range]) -> list[range]:
    """What is mapped since then where a view was, or beside it. Elsewhere other threads map and unmap all the time."""
    around = range(address - LARGE, address + place.byte_size + LARGE)
    return [each for each in _maps() - before if each.start < around.stop and around.start < each.stop]


def _maps() -> set[range]:
    """The ranges of address space that this process has mapped of files in the shared directory, or of nothing."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ends = [line[0].split("-") for line in lines if line[1] == "---p" or "/dev/shm/" in line[-1]]
    return {range(int(start, 16), int(stop, 16)) for start, stop in ends}
