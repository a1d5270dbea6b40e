"""Open, lock, then check: what is at the path must be what was promised, or nothing is mapped and no lock is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_descriptors import count_open

import tensord
from tensord._mapping import attach, lease, libc
from tensord._mapping.attach import Mismatch, Place, map_place, open_leased
from tensord._mapping.mapping import Access

MakePlace = Callable[..., Place]


def test_a_reader_takes_the_lease_and_a_writer_both(make_place: MakePlace) -> None:
    place = make_place()
    assert not lease.is_leased(place.path)
    for writable in (False, True):
        fd = open_leased(place, writable=writable)
        assert (lease.is_leased(place.path), lease.has_writer(place.path)) == (True, writable)
        os.close(fd)
        assert (lease.is_leased(place.path), lease.has_writer(place.path)) == (False, False)


def test_leases_are_shared(make_place: MakePlace) -> None:
    place = make_place()
    first, second = (map_place(place, 0, 1, Access.WRITE) for _ in "ab")
    first.close()
    assert lease.has_writer(place.path)
    second.close()
    assert not lease.is_leased(place.path)


def test_the_lock_comes_before_the_check(make_place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place()
    seen: list[bool] = []
    check = attach._check

    def look_and_check(fd: int, place: Place, path: str, writable: bool) -> None:
        seen.append(lease.has_writer(path))
        check(fd, place, path, writable)

    monkeypatch.setattr(attach, "_check", look_and_check)
    map_place(place, 0, 1, Access.WRITE).close()
    assert seen == [True]


@pytest.mark.parametrize(
    "change",
    [
        {"dev": 1 << 40},
        {"ino": 1},
        {"byte_size": 8193},
        {"path": "/dev/shm/tensord-test-none/x"},
        {"path": "/dev/null"},
    ],
)
def test_another_file_than_promised_is_not_mapped(make_place: MakePlace, change: dict[str, object]) -> None:
    good = make_place()
    place = replace(good, **change)  # type: ignore[arg-type]
    with pytest.raises(Mismatch, match=f"Cannot map region {place.region}"):
        map_place(place, 0, 1, Access.PRIVATE)
    assert not lease.is_leased(good.path)


def test_a_name_that_moves_during_the_check_is_noticed(make_place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place()
    open_file = attach._open

    def open_then_replace(*args: object) -> int:
        fd = open_file(*args)  # type: ignore[arg-type]
        os.rename(place.path, f"{place.path}.old")
        Path(place.path).write_bytes(bytes(8192))
        return fd

    monkeypatch.setattr(attach, "_open", open_then_replace)
    with pytest.raises(Mismatch, match="is inode"):
        map_place(place, 0, 1, Access.PRIVATE)


def test_a_symbolic_link_is_not_followed(make_place: MakePlace) -> None:
    place = make_place()
    os.rename(place.path, f"{place.path}.real")
    os.symlink(f"{place.path}.real", place.path)
    with pytest.raises(Mismatch):
        map_place(place, 0, 1, Access.PRIVATE)


@pytest.mark.parametrize("access", [Access.PRIVATE, Access.WRITE])
def test_a_fifo_in_its_place_does_not_hang(make_place: MakePlace, access: Access) -> None:
    place = make_place()
    os.unlink(place.path)
    os.mkfifo(place.path)
    status = os.stat(place.path)
    with pytest.raises((Mismatch, tensord.MappingFailed)):
        map_place(replace(place, dev=status.st_dev, ino=status.st_ino, byte_size=0), 0, 1, access)


@pytest.mark.parametrize("mode", [0o1440, 0o1660, 0o1540, 0o440, 0o400])
def test_a_sealed_file_is_read_and_not_written(make_place: MakePlace, mode: int) -> None:
    place = make_place(mode=mode)
    with pytest.raises(Mismatch) as caught:
        map_place(place, 0, 1, Access.WRITE)
    assert caught.value.sealed
    assert not lease.has_writer(place.path)
    map_place(place, 0, 1, Access.PRIVATE).close()


def test_a_write_lock_on_the_lease_byte_is_a_clear_error(make_place: MakePlace) -> None:
    place = make_place()
    fd = os.open(place.path, os.O_RDWR)
    lease._ofd_lock(fd, lease._F_OFD_SETLK, lease._to_flock(lease._F_WRLCK, lease.LEASE_BYTE, 1))
    with pytest.raises(tensord.MappingFailed, match="locking"):
        map_place(place, 0, 1, Access.PRIVATE)
    os.close(fd)
    map_place(place, 0, 1, Access.PRIVATE).close()


def test_descriptors_are_closed_whatever_happens(make_place: MakePlace) -> None:
    place = make_place()
    mapping = map_place(place, 0, 1, Access.PRIVATE)
    with pytest.raises(Mismatch):
        map_place(replace(place, ino=1), 0, 1, Access.PRIVATE)
    assert count_open(place.path) == 0
    mapping.close()


def test_a_failing_mmap_says_so(make_place: MakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOMEM, "mmap: Cannot allocate memory")

    place = make_place()
    monkeypatch.setattr(libc, "mmap", fail)
    with pytest.raises(tensord.MappingFailed, match="Cannot allocate memory"):
        map_place(place, 0, 1, Access.PRIVATE)
    assert not lease.is_leased(place.path)


def test_another_device_is_another_namespace(make_place: MakePlace) -> None:
    place = make_place()
    error = Mismatch(replace(place, dev=1 << 40), "is elsewhere").to_error()
    assert isinstance(error, tensord.WrongNamespace)
    here = os.stat(os.path.dirname(place.path)).st_dev
    assert f"here is device {here}, the server's is {1 << 40}" in str(error)
    assert "mount the same volume in both containers" in str(error)


def test_a_missing_directory_is_another_namespace(make_place: MakePlace) -> None:
    error = Mismatch(replace(make_place(), path="/nowhere/tensord.a.b"), "cannot be opened").to_error()
    assert isinstance(error, tensord.WrongNamespace)
    assert "/nowhere is not here" in str(error)


def test_a_missing_file_on_the_same_device_is_stale(make_place: MakePlace) -> None:
    assert isinstance(Mismatch(make_place(), "went away").to_error(), tensord.StaleRef)
