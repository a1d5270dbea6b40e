"""Files of somebody else's that regions are (``file`` storage): opened where they lie, and looked at after that. Nobody
locks them, since on such a file a lock proves nothing: who maps one has leased the region by request before.

Who writes to the file changes what is mapped, and who cuts it takes pages away: a touch of one that is gone ends the
process by ``SIGBUS``, as with any mapped file.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tensord._errors import AccessDenied, MappingFailed, refuse_without_descriptor

if TYPE_CHECKING:
    from .attach import Place

FILE = "file"
COPY_HINT = "load it with mode='copy', which the server reads for all"

# Links on the way are its owner's to make. A FIFO or a terminal in its place must not be waited for.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class Elsewhere(Exception):
    """What lies at the path here is not the file that the server sees, in words that end a sentence."""


def open_origin(place: Place) -> int:
    """A descriptor of the file, for reading, without locks. Raises ``Elsewhere``, ``AccessDenied``, ``MappingFailed``,
    ``OutOfDescriptors``.
    """
    path = place.path
    if path is None:
        raise Elsewhere("is not known to the server any more")
    try:
        fd = os.open(path, _FLAGS)
    except PermissionError as error:
        raise AccessDenied(
            f"Cannot open {path}, which is region {place.region}: {error.strerror}, and this process is uid "
            f"{os.geteuid()}",
            hint=f"let this process read the file, or {COPY_HINT}",
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Elsewhere(f"is not here ({error.strerror})") from error
    except OSError as error:
        refuse_without_descriptor(error, f"open region {place.region}")
        raise MappingFailed(f"Cannot open region {place.region}: {error.strerror} for {path}") from error
    try:
        _check(fd, place)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(fd: int, place: Place) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise Elsewhere("is no regular file")
    if (status.st_dev, status.st_ino) != (place.dev, place.ino):
        raise Elsewhere(f"is inode {status.st_ino} of device {status.st_dev}, want {place.ino} of {place.dev}")
    if status.st_size != place.byte_size:
        raise Elsewhere(f"has {status.st_size} bytes, want {place.byte_size}")
    if place.mtime_ns is not None and status.st_mtime_ns != place.mtime_ns:
        raise Elsewhere("was written to since it was loaded")
