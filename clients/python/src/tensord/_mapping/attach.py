"""The attach protocol (docs/protocol.md, "Attach"): open, lock, *then* check.

The order is what makes it safe against a free or a seal that happens at the same time. It knows files and locks; who is
asked when a check fails is the caller's business.

Where the name does not serve, since the region has none, or another file system is mounted here, or this uid may not
open it, a descriptor from the broker does ("Attach by descriptor"): leased and looked at by the server already.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from tensord._errors import (
    AccessDenied,
    FeatureUnavailable,
    MappingFailed,
    RegionSealed,
    StaleRef,
    TensordError,
    WrongNamespace,
    refuse_without_descriptor,
)

from . import lease
from .libc import PAGE_SIZE
from .local_memory import LocalMemory
from .mapping import Access, Mapping, View, map_file
from .origin_file import COPY_HINT, FILE, Elsewhere, open_origin

# A symbolic link, a FIFO and a terminal in the place of a region's file must neither be followed nor waited for.
_OPEN_FLAGS = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_READ_FLAGS, _WRITE_FLAGS = os.O_RDONLY | _OPEN_FLAGS, os.O_RDWR | _OPEN_FLAGS
# How often a region that is said to stand is looked for: stock readers may unlink the name that the server has just
# brought back, several times in a row where many end at once.
STANDING_TRIES = 100
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR})


# As in mapping.py.
_WRITE = Access.WRITE
_CONSUMER = lease.Role.CONSUMER

# The kind of storage whose regions have names here.
SHM = "shm"

AttachedBy = Literal["name", "descriptor", "copy"]
"""How a region's file was reached."""


@dataclass(slots=True)
class Asked:
    """Who is asked about a region beyond what its name here shows: its server.

    ``stands`` says whether it stands still where its name is gone: asked, the server links a lost name back.
    ``hand_out`` gets an open descriptor of it, for writing or not, and says whether it is leased; it raises
    ``NotHandedOut`` where nobody can be asked, ``Mismatch`` where the region is not as it was told. ``byte_size`` is
    that of all of it, if it can be asked, and ``instance`` that of who handed out. ``copy`` gets this process's copy of
    a sealed region that nobody maps, by its id. ``hand_out_device`` is ``hand_out`` of memory of a device. ``file``
    says where a region of ``file`` storage is, by its id.
    """

    stands: Callable[[Place], bool]
    hand_out: Callable[[Place, bool], tuple[int, bool]] | None = None
    byte_size: Callable[[Place], int | None] | None = None
    instance: Callable[[], str] | None = None
    copy: Callable[[str], LocalMemory] | None = None
    hand_out_device: Callable[[Place, bool], HandedDevice] | None = None
    file: Callable[[str], Place] | None = None


@dataclass(frozen=True, slots=True)
class HandedDevice:
    """What is handed out of a region on a device: ``fd`` of the file that carries its locks, ``leased`` or not, and
    ``device_fd``, which leads to the memory: ``allocation_bytes`` of it, on the device ``device_uuid``, to be imported
    as ``handle_type`` says. Whoever got it closes both. ``None`` is what the server did not say.
    """

    fd: int
    leased: bool
    device_fd: int
    device_uuid: str | None
    handle_type: str | None
    allocation_bytes: int | None


# Not frozen, since each attach makes one: that would take five times as long. Nobody changes one.
@dataclass(slots=True, unsafe_hash=True)
class Place:
    """Where a region's bytes should be: ``byte_size`` is what the file must at least have. ``path`` is ``None`` if it
    has no name to open. ``role`` is as what this process maps it, ``storage`` what it is made of, ``instance`` whose it
    is, if that is known, ``copy`` this process's own memory for it, where no process maps the region, ``mtime_ns`` when
    the file was last written, of one that is somebody else's. ``fill`` gets the file's descriptor, as long as it is
    open to be mapped.
    """

    region: str
    path: str | None
    dev: int
    ino: int
    byte_size: int
    asked: Asked | None = field(default=None, compare=False, repr=False)
    role: lease.Role = field(default=_CONSUMER, compare=False, repr=False)
    storage: str = field(default="shm", compare=False, repr=False)
    instance: str | None = field(default=None, compare=False, repr=False)
    copy: LocalMemory | None = field(default=None, compare=False, repr=False)
    mtime_ns: int | None = field(default=None, compare=False, repr=False)
    fill: Callable[[int], None] | None = field(default=None, compare=False, repr=False)

    @property
    def shown(self) -> str:
        """How messages call its file."""
        return self.path or "its file"


class NotHandedOut(Exception):
    """Nobody here hands out descriptors. ``error`` says why, and what to do."""

    def __init__(self, error: TensordError) -> None:
        super().__init__(str(error))
        self.error = error


class Mismatch(Exception):
    """The path does not show what the caller was told. It may have been told too long ago: ask again."""

    def __init__(self, place: Place, seen: str, *, sealed: bool = False, truncated: bool = False) -> None:
        super().__init__(f"Cannot map region {place.region}: {place.shown} {seen}")
        self.place = place
        self.sealed = sealed
        self.truncated = truncated
        # Why nobody could be asked to hand it out instead.
        self.nobody: TensordError | None = None

    def to_error(self) -> TensordError:
        """What is left to say when the other side insists."""
        error = self._to_error()
        if self.nobody is not None:
            error.hint = _with_broker(error.hint, self.nobody)
        return error

    def _to_error(self) -> TensordError:
        place = self.place
        if self.sealed:
            return RegionSealed(str(self), hint="map it for reading")
        if self.truncated:
            return MappingFailed(str(self), hint="delete the region and create it again")
        if place.path is None:
            return self._to_stale()
        if place.storage == FILE:
            return WrongNamespace(
                f"{self}; the server sees the file that it has loaded",
                hint=f"mount the same folder at that path in both containers, or {COPY_HINT}",
            )
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
        return self._to_stale()

    def _to_stale(self) -> StaleRef:
        return StaleRef(str(self), hint="the region was deleted or replaced: attach it by name again")


class Barred(MappingFailed):
    """Somebody write-locks the lease byte of a sealed file: it can be mapped, and not be leased by a lock."""


def map_place(
    place: Place,
    byte_offset: int,
    byte_size: int,
    access: Access,
    *,
    leased: bool = True,
    stands: Callable[[Place], bool] | None = None,
) -> View:
    """Maps a range of the file at ``place``, locked and checked; the locks live as long as the mapping does. ``stands``
    answers in the place of who is asked whether the region does.

    Raises ``Mismatch``, ``AccessDenied``, ``MappingFailed``, ``OutOfDescriptors``, and leaves neither descriptor nor
    lock then. After ``Barred`` it can be mapped with ``leased=False``: its pages live for as long as they are mapped.
    """
    opened = _open_standing(place, writable=access is _WRITE, leased=leased, stands=stands)
    return _map_opened(opened, place, byte_offset, byte_size, access)


def map_at_once(place: Place, byte_offset: int, byte_size: int, access: Access) -> View | None:
    """As ``map_place``, of what its name leads to at once, which is the rule; ``None`` where it does not, of which
    ``map_place`` knows more. Raises ``MappingFailed``, ``RegionSealed``, ``OutOfDescriptors``.
    """
    path = place.path
    if path is None or place.storage != SHM:
        return None
    try:
        fd = _open_checked(place, path, writable=access is _WRITE, leased=True, to_pin=False)
    except (Mismatch, AccessDenied, Barred):
        return None
    if place.fill is not None:
        return _map_opened(_Opened(fd, "name"), place, byte_offset, byte_size, access)
    try:
        return map_file(fd, byte_offset, byte_size, access)
    except OSError as error:
        raise _unmappable(place, byte_size, error, writable=access is _WRITE) from error
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
        opened = _open_standing(place, writable=False, leased=True, to_pin=writable)
    except Barred:
        # As in map_beside.
        opened = _open_standing(place, writable=False, leased=False, to_pin=writable)
    return _map_opened(opened, place, 0, place.byte_size, Access.WRITE if writable else Access.STRICT)


def _map_opened(opened: _Opened, place: Place, byte_offset: int, byte_size: int, access: Access) -> View:
    try:
        view = map_file(opened.fd, byte_offset, byte_size, access, opened.page_bytes)
        if place.fill is not None:
            try:
                place.fill(opened.fd)
            except BaseException:
                # Whoever keeps the failure does not keep the pages.
                view.close()
                raise
    except OSError as error:
        raise _unmappable(place, byte_size, error, writable=access is _WRITE) from error
    finally:
        os.close(opened.fd)
    view.mapping.attached_by = opened.by
    if place.copy is not None:
        # Who attaches it while anything of it is left here gets the same memory.
        view.at_end(functools.partial(_let_go_of, place.copy))
    return view


def _let_go_of(_: LocalMemory) -> None:
    """Keeps its argument for as long as it is to be called."""


def _unmappable(place: Place, byte_size: int, error: OSError, *, writable: bool) -> TensordError:
    if error.errno == errno.EPERM and writable:
        # The kernel's seal (fcntl(2), F_SEAL_WRITE) cannot be taken back.
        return RegionSealed(
            f"Cannot map region {place.region} for writing: it is open, but the kernel has made its bytes final: a "
            "seal was refused after that, or a worker did it by itself",
            hint="seal it again, which goes on from there, and attach it without writable=True; or delete it and "
            "create it anew",
            fields={"errno": "EPERM"},
        )
    hint = "is the address space limited (ulimit -v), or are there too many mappings (vm.max_map_count)?"
    if error.errno == errno.EAGAIN:
        hint = "this process locks its memory (mlockall), and ulimit -l leaves no room for more: raise it, or lock less"
    return MappingFailed(f"Cannot map region {place.region}: {error} for {byte_size} bytes of {place.shown}", hint=hint)


def remap_place(place: Place, mapping: Mapping, access: Access) -> None:
    """Maps the file at ``place`` over ``mapping``, in place. Raises as ``map_place`` does, and changes nothing then."""
    opened = _open_standing(place, writable=access is Access.WRITE, leased=True)
    try:
        mapping.remap(opened.fd, access)
    except OSError as error:
        raise _unmappable(place, place.byte_size, error, writable=access is Access.WRITE) from error
    finally:
        os.close(opened.fd)
    mapping.attached_by = opened.by


def open_leased(place: Place, *, writable: bool) -> int:
    """A descriptor of the file at ``place``, locked and then checked. Map it and close it. Raises as ``map_place``."""
    return _open_standing(place, writable=writable, leased=True).fd


def open_unleased(place: Place, *, writable: bool) -> int:
    """A descriptor of the file at ``place``, checked only, for locks that are no lease. Raises as ``map_place``."""
    return _open_standing(place, writable=writable, leased=False).fd


@dataclass(slots=True)
class _Opened:
    """An open descriptor, and how it was got. ``page_bytes`` is what its mappings are made of."""

    fd: int
    by: AttachedBy
    page_bytes: int = PAGE_SIZE


def _open_standing(
    place: Place,
    *,
    writable: bool,
    leased: bool,
    to_pin: bool = False,
    stands: Callable[[Place], bool] | None = None,
) -> _Opened:
    path, asked = place.path, place.asked
    if place.copy is not None:
        return _Opened(place.copy.open(writable=writable or to_pin), "copy")
    if place.storage == FILE:
        if writable or to_pin:
            raise Mismatch(place, "is a file of somebody else's", sealed=True)
        try:
            return _Opened(open_origin(place), "name")
        except Elsewhere as error:
            raise Mismatch(place, str(error)) from error
    if path is None:
        return _take(place, None, writable=writable, leased=leased, to_pin=to_pin)
    for tries in range(STANDING_TRIES):
        failure: Mismatch | AccessDenied
        try:
            return _Opened(_open_checked(place, path, writable=writable, leased=leased, to_pin=to_pin), "name")
        except (Mismatch, AccessDenied) as error:
            failure = error
        if asked is None:
            break
        if isinstance(failure, Mismatch):
            if failure.sealed or failure.truncated:
                break
            # Of another file system the server knows nothing better.
            if isinstance(failure.to_error(), StaleRef):
                if not (stands or asked.stands)(place):
                    break
                if tries != 1:
                    # It has linked a lost name back; where that does not help, the name is hidden here.
                    continue
        opened = _try_to_take(place, failure, writable=writable, leased=leased, to_pin=to_pin)
        if opened is not None:
            return opened
    raise failure


def _try_to_take(
    place: Place, failure: Mismatch | AccessDenied, *, writable: bool, leased: bool, to_pin: bool
) -> _Opened | None:
    """Takes a descriptor from the broker. Raises ``failure`` if that cannot be, and no name will help; ``None`` if one
    may.
    """
    try:
        return _take(place, failure, writable=writable, leased=leased, to_pin=to_pin)
    except NotHandedOut as nobody:
        if isinstance(failure, AccessDenied):
            failure.hint = _with_broker(failure.hint, nobody.error)
            raise failure from nobody
        failure.nobody = nobody.error
        if isinstance(failure.to_error(), StaleRef):
            return None
        raise failure from nobody


def _take(
    place: Place, failure: Mismatch | AccessDenied | None, *, writable: bool, leased: bool, to_pin: bool
) -> _Opened:
    """A descriptor from the broker, checked ("Attach by descriptor", steps 1 and 2), instead of the name, which failed
    by ``failure``. Raises ``NotHandedOut`` where there is a name.
    """
    hand_out = None if place.asked is None else place.asked.hand_out
    try:
        if hand_out is None:
            raise NotHandedOut(
                FeatureUnavailable(
                    f"Cannot map region {place.region}: it has no name to open, and no server can be asked",
                    hint="open it with a client: client.open(ref)",
                )
            )
        fd, is_leased = hand_out(place, writable or to_pin)
    except NotHandedOut as nobody:
        if failure is not None:
            raise
        error = nobody.error
        error.detail = f"Cannot map region {place.region}, which has no name to open: {error.detail}"
        raise error from nobody
    try:
        page_bytes = _check_taken(fd, place)
        if not leased:
            lease.let_go(fd)
        elif not is_leased:
            raise Barred(
                f"Cannot map region {place.region}: another process write-locks the lease bytes of its file",
                hint="`tensord doctor` tells who",
            )
        elif to_pin and not writable:
            # It is written to by a device at most: no writer of the region.
            lease.let_go_of_writing(fd)
    except BaseException:
        os.close(fd)
        raise
    return _Opened(fd, "descriptor", page_bytes)


def _check_taken(fd: int, place: Place) -> int:
    """Checks what came against what was told. Returns the size of its pages."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (place.dev, place.ino):
        raise Mismatch(
            place,
            f"is inode {status.st_ino} of device {status.st_dev} as the broker hands it out, want {place.ino} of "
            f"{place.dev}",
        )
    if status.st_size < place.byte_size:
        seen = f"has {status.st_size} bytes, want {place.byte_size}: somebody truncated it"
        raise Mismatch(place, seen, truncated=True)
    # Of a file of huge pages a mapping begins and ends with one.
    return max(PAGE_SIZE, status.st_blksize) if place.path is None else PAGE_SIZE


def _with_broker(hint: str | None, error: TensordError) -> str:
    """What else would do: the broker, and why it cannot be asked."""
    other = f"or let it ask the server's broker, which it cannot: {error.detail}"
    if error.hint is not None:
        other = f"{other} ({error.hint})"
    return other if hint is None else f"{hint}; {other}"


def _open_checked(place: Place, path: str, *, writable: bool, leased: bool, to_pin: bool) -> int:
    fd = _open(place, path, writable or to_pin)
    try:
        if leased:
            _lock(fd, place, writable)
        _check(fd, place, path, writable)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(place: Place, path: str, writable: bool) -> int:
    try:
        return os.open(path, _WRITE_FLAGS if writable else _READ_FLAGS)
    except OSError as error:
        _refuse_open(place, path, writable, error)


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


def _check(fd: int, place: Place, path: str, writable: bool) -> None:
    opened = os.fstat(fd)
    if not stat.S_ISREG(opened.st_mode):
        raise Mismatch(place, "is no regular file")
    try:
        named = os.lstat(path)
    except OSError as error:
        raise Mismatch(place, f"went away meanwhile ({error.strerror})") from error
    ino, dev = place.ino, place.dev
    if opened.st_ino != ino or opened.st_dev != dev:
        raise _to_other(place, opened)
    if named.st_ino != ino or named.st_dev != dev:
        raise _to_other(place, named)
    if opened.st_size < place.byte_size:
        seen = f"has {opened.st_size} bytes, want {place.byte_size}: somebody truncated it"
        raise Mismatch(place, seen, truncated=True)
    if writable and _is_sealed(opened.st_mode):
        raise Mismatch(place, "is sealed", sealed=True)


def _to_other(place: Place, seen: os.stat_result) -> Mismatch:
    return Mismatch(place, f"is inode {seen.st_ino} of device {seen.st_dev}, want {place.ino} of {place.dev}")


def _refuse_open(place: Place, path: str, writable: bool, error: OSError) -> NoReturn:
    if error.errno in _ABSENT:
        raise Mismatch(place, f"cannot be opened here ({error.strerror})") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        _refuse_access(place, path, writable, error)
    refuse_without_descriptor(error, f"open region {place.region}")
    raise MappingFailed(f"Cannot open region {place.region}: {error.strerror} for {place.path}") from error


def is_sealed(place: Place) -> bool:
    """Whether the file at ``place`` is a sealed one, as its mode says. Asks no server: of what has no name, nobody."""
    if place.path is None:
        return False
    try:
        return _is_sealed(os.stat(place.path).st_mode)
    except OSError:
        return False


def _is_sealed(mode: int) -> bool:
    return bool(mode & stat.S_ISVTX) or not mode & (stat.S_IWUSR | stat.S_IWGRP)


def _refuse_access(place: Place, path: str, writable: bool, error: OSError) -> NoReturn:
    try:
        status = os.lstat(path)
    except OSError:
        facts = "it cannot be looked at either"
    else:
        if writable and (status.st_dev, status.st_ino) == (place.dev, place.ino) and _is_sealed(status.st_mode):
            raise Mismatch(place, "is sealed", sealed=True) from error
        facts = f"it is uid {status.st_uid}, gid {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}"
    groups = ", ".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    raise AccessDenied(
        f"Cannot open region {place.region} for {'writing' if writable else 'reading'}: {error.strerror} for "
        f"{path}; {facts}, and this process is uid {os.geteuid()} in groups {groups}",
        hint="run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)",
    ) from error
