"""The attach protocol (docs/protocol.md, "Attach"): open, lock, *then* check.

The order is what makes it safe against a free or a seal that happens at the same time. It knows files and locks; who is
asked when a check fails is the caller's business.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from tensord._errors import (
    AccessDenied,
    MappingFailed,
    RegionSealed,
    StaleRef,
    TensordError,
    WrongNamespace,
    refuse_without_descriptor,
)

from . import lease
from .mapping import Access, Mapping, View, map_file

# A symbolic link, a FIFO and a terminal in the place of a region's file must neither be followed nor waited for.
_OPEN_FLAGS = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
# How often a region that is said to stand is looked for: stock readers may unlink the name that the server has just
# brought back, several times in a row where many end at once.
STANDING_TRIES = 100
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a region's bytes should be: ``byte_size`` is what the file must at least have. Where its name is gone,
    ``stands`` asks whoever knows whether the region stands all the same: asked, the server links a lost name back.
    ``role`` is as what this process maps it.
    """

    region: str
    path: str
    dev: int
    ino: int
    byte_size: int
    stands: Callable[[Place], bool] | None = field(default=None, compare=False, repr=False)
    role: lease.Role = field(default=lease.Role.CONSUMER, compare=False, repr=False)


class Mismatch(Exception):
    """The path does not show what the caller was told. It may have been told too long ago: ask again."""

    def __init__(self, place: Place, seen: str, *, sealed: bool = False, truncated: bool = False) -> None:
        super().__init__(f"Cannot map region {place.region}: {place.path} {seen}")
        self.place = place
        self.sealed = sealed
        self.truncated = truncated

    def to_error(self) -> TensordError:
        """What is left to say when the other side insists."""
        place = self.place
        if self.sealed:
            return RegionSealed(str(self), hint="map it for reading")
        if self.truncated:
            return MappingFailed(str(self), hint="delete the region and create it again")
        directory = os.path.dirname(place.path)
        try:
            here = os.stat(directory).st_dev
        except OSError as error:
            return WrongNamespace(
                f"Cannot map region {place.region}: {directory} is not here ({os.strerror(error.errno or 0)}), and the "
                f"server's is device {place.dev}",
                hint="mount the same volume at that path in both containers",
            )
        if here != place.dev:
            return WrongNamespace(
                f"Cannot map region {place.region}: {directory} here is device {here}, the server's is {place.dev}",
                hint="mount the same volume in both containers",
                fields={"dev_here": here, "dev_server": place.dev},
            )
        return StaleRef(str(self), hint="the region was deleted or replaced: attach it by name again")


class Barred(MappingFailed):
    """Somebody write-locks the lease byte of a sealed file: it can be mapped, and not be leased by a lock."""


def map_place(place: Place, byte_offset: int, byte_size: int, access: Access, *, leased: bool = True) -> View:
    """Maps a range of the file at ``place``, locked and checked; the locks live as long as the mapping does.

    Raises ``Mismatch``, ``AccessDenied``, ``MappingFailed``, ``OutOfDescriptors``, and leaves neither descriptor nor
    lock then. After ``Barred`` it can be mapped with ``leased=False``: its pages live for as long as they are mapped.
    """
    open_file = open_leased if leased else open_unleased
    fd = open_file(place, writable=access is Access.WRITE)
    try:
        return map_file(fd, byte_offset, byte_size, access)
    except OSError as error:
        raise _unmappable(place, byte_size, error) from error
    finally:
        os.close(fd)


def map_beside(place: Place) -> View:
    """Maps all of the file at ``place`` once more, read-only to the processor. Raises as ``map_place``."""
    try:
        return map_place(place, 0, place.byte_size, Access.STRICT)
    except Barred:
        # What keeps the mapping that is there keeps this one.
        return map_place(place, 0, place.byte_size, Access.STRICT, leased=False)


def map_to_pin(place: Place, *, writable: bool) -> View:
    """Maps all of the file at ``place`` once more, shared, for who pins its pages: ``writable`` where pins ask for
    that, which a sealed file need not allow. It counts as a reader. Raises as ``map_place``.
    """
    try:
        fd = _open_standing(place, writable=False, leased=True, to_pin=writable)
    except Barred:
        # As in map_beside.
        fd = _open_standing(place, writable=False, leased=False, to_pin=writable)
    try:
        return map_file(fd, 0, place.byte_size, Access.WRITE if writable else Access.STRICT)
    except OSError as error:
        raise _unmappable(place, place.byte_size, error) from error
    finally:
        os.close(fd)


def _unmappable(place: Place, byte_size: int, error: OSError) -> MappingFailed:
    hint = "is the address space limited (ulimit -v), or are there too many mappings (vm.max_map_count)?"
    if error.errno == errno.EAGAIN:
        hint = "this process locks its memory (mlockall), and ulimit -l leaves no room for more: raise it, or lock less"
    return MappingFailed(f"Cannot map region {place.region}: {error} for {byte_size} bytes of {place.path}", hint=hint)


def remap_place(place: Place, mapping: Mapping, access: Access) -> None:
    """Maps the file at ``place`` over ``mapping``, in place. Raises as ``map_place`` does, and changes nothing then."""
    fd = open_leased(place, writable=access is Access.WRITE)
    try:
        mapping.remap(fd, access)
    except OSError as error:
        raise _unmappable(place, place.byte_size, error) from error
    finally:
        os.close(fd)


def open_leased(place: Place, *, writable: bool) -> int:
    """A descriptor of the file at ``place``, locked and then checked. Map it and close it. Raises as ``map_place``."""
    return _open_standing(place, writable=writable, leased=True)


def open_unleased(place: Place, *, writable: bool) -> int:
    """A descriptor of the file at ``place``, checked only, for locks that are no lease. Raises as ``map_place``."""
    return _open_standing(place, writable=writable, leased=False)


def _open_standing(place: Place, *, writable: bool, leased: bool, to_pin: bool = False) -> int:
    for _ in range(STANDING_TRIES):
        try:
            return _open_checked(place, writable=writable, leased=leased, to_pin=to_pin)
        except Mismatch as error:
            mismatch = error
        # Of another file system the server knows nothing better.
        if place.stands is None or not isinstance(mismatch.to_error(), StaleRef) or not place.stands(place):
            break
    raise mismatch


def _open_checked(place: Place, *, writable: bool, leased: bool, to_pin: bool) -> int:
    fd = _open(place, writable or to_pin)
    try:
        if leased:
            _lock(fd, place, writable)
        _check(fd, place, writable)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(place: Place, writable: bool) -> int:
    try:
        return os.open(place.path, (os.O_RDWR if writable else os.O_RDONLY) | _OPEN_FLAGS)
    except OSError as error:
        if error.errno in _ABSENT:
            raise Mismatch(place, f"cannot be opened here ({error.strerror})") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            _refuse_access(place, writable, error)
        refuse_without_descriptor(error, f"open region {place.region}")
        raise MappingFailed(f"Cannot open region {place.region}: {error.strerror} for {place.path}") from error


def _lock(fd: int, place: Place, writable: bool) -> None:
    try:
        lease.take_lease(fd, place.role)
        if writable:
            lease.take_writer_lease(fd)
    except OSError as error:
        barred = error.errno in (errno.EAGAIN, errno.EACCES) and not writable and _is_sealed(os.fstat(fd).st_mode)
        raise (Barred if barred else MappingFailed)(
            f"Cannot map region {place.region}: locking {place.path} failed ({error})",
            hint="another process write-locks the lease bytes of this file, or its file system has no such locks; "
            "`tensord doctor` tells",
        ) from error


def _check(fd: int, place: Place, writable: bool) -> None:
    opened = os.fstat(fd)
    if not stat.S_ISREG(opened.st_mode):
        raise Mismatch(place, "is no regular file")
    identity = (place.dev, place.ino)
    try:
        named = os.lstat(place.path)
    except OSError as error:
        raise Mismatch(place, f"went away meanwhile ({error.strerror})") from error
    for status in (opened, named):
        if (status.st_dev, status.st_ino) != identity:
            raise Mismatch(
                place, f"is inode {status.st_ino} of device {status.st_dev}, want {place.ino} of {place.dev}"
            )
    if opened.st_size < place.byte_size:
        seen = f"has {opened.st_size} bytes, want {place.byte_size}: somebody truncated it"
        raise Mismatch(place, seen, truncated=True)
    if writable and _is_sealed(opened.st_mode):
        raise Mismatch(place, "is sealed", sealed=True)


def is_sealed(place: Place) -> bool:
    """Whether the file at ``place`` is a sealed one, as its mode says. Asks no server."""
    try:
        return _is_sealed(os.stat(place.path).st_mode)
    except OSError:
        return False


def _is_sealed(mode: int) -> bool:
    return bool(mode & stat.S_ISVTX) or not mode & (stat.S_IWUSR | stat.S_IWGRP)


def _refuse_access(place: Place, writable: bool, error: OSError) -> NoReturn:
    try:
        status = os.lstat(place.path)
    except OSError:
        facts = "it cannot be looked at either"
    else:
        if writable and (status.st_dev, status.st_ino) == (place.dev, place.ino) and _is_sealed(status.st_mode):
            raise Mismatch(place, "is sealed", sealed=True) from error
        facts = f"it is uid {status.st_uid}, gid {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}"
    groups = ", ".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    raise AccessDenied(
        f"Cannot open region {place.region} for {'writing' if writable else 'reading'}: {error.strerror} for "
        f"{place.path}; {facts}, and this process is uid {os.geteuid()} in groups {groups}",
        hint="run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)",
    ) from error
