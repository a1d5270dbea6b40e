"""A region's file by its path, for readers that know nothing of leases: an engine that maps it there takes none, so
this process takes one for it.
"""

from __future__ import annotations

import os
import weakref
from types import TracebackType
from typing import NoReturn

from tensord._errors import Closed, FeatureUnavailable
from tensord._mapping.attach import open_unleased
from tensord._tensor.reference import DEVICE_STORAGE, HEAP
from tensord._wire.region import RegionDescriptor

from .region import Region


class PathHold:
    """The path of a region's file, which is in use until ``close``. Made by ``hold``: use it in a ``with`` statement,
    which gives the path, or close it after the engine has let go of the file. It ends with this process at the latest,
    and with a child made by ``fork``, which inherits it.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._descriptor = region.descriptor
        fd: int | None = None
        if region.attached_by == "name":
            self._path = str(region.descriptor.storage.path)
        else:
            try:
                fd = open_unleased(region._attachment.place, writable=False)
            except BaseException:
                region.close()
                raise
            self._path = f"/proc/self/fd/{fd}"
        self._finish = weakref.finalize(self, _finish, region, fd)
        self._finish.atexit = False

    @property
    def path(self) -> str:
        """Where this process finds the file: its name in the shared directory, or, where it has none that this process
        can open (``private``, ``memfd``, another mount namespace), ``/proc/self/fd/…``, which is this process's alone.
        Raises ``Closed``.
        """
        if self.closed:
            raise Closed(
                f"Cannot use the path of region {self._descriptor.id}: it was let go here", hint="hold it again"
            )
        return self._path

    @property
    def descriptor(self) -> RegionDescriptor:
        """What the server said when it was asked."""
        return self._descriptor

    @property
    def closed(self) -> bool:
        return not self._finish.alive

    def close(self) -> None:
        """Ends the lease. What still maps the file keeps its bytes, and not the region. Safe to call twice."""
        self._finish()

    def __enter__(self) -> str:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tensord.PathHold of {self._descriptor.shown}, {'closed' if self.closed else self._path}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a hold cannot be pickled or copied: hold the region in the process that needs its path")


def _finish(region: Region, fd: int | None) -> None:
    region.close()
    if fd is not None:
        os.close(fd)


def check_has_path(region: RegionDescriptor) -> None:
    """Raises ``FeatureUnavailable`` for a region whose bytes are in no file."""
    kind = region.storage.kind
    if kind in (HEAP, DEVICE_STORAGE):
        raise FeatureUnavailable(
            f"Cannot hold {region.shown} by a path: it is in {kind} storage, whose bytes no file has",
            hint='copy it into one that has a file, client.copy(region, storage="shm"), and hold that',
        )
