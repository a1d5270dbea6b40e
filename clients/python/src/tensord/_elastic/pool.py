"""An elastic pool of this process's own, with a budget of its own: no server is asked. The pool that is followed from a
server (``shared_pool.py``) is the same class, and differs in who decides what is mapped.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NoReturn

from tensord._arguments.checked import checked, checked_class
from tensord._arguments.kinds import ByteCount, Count, DeviceName, Shape
from tensord._cuda.devices import FORK_HINT, find_usable_device
from tensord._cuda.driver import OUT_OF_MEMORY
from tensord._cuda.memory import refuse_without_room
from tensord._errors import AlreadyMapped, Closed, DriverFailed, NotMapped, OutOfDeviceMemory, OutOfRange, PoolFull
from tensord._tensor.dtype import parse_dtype
from tensord._wire.elastic_pool import FreeRun, Move, PoolStatistics, Run

from .layout import Range, check_sizes, find_first_hole, find_holes, plan_compaction, to_range, to_ranges
from .pool_tensor import PoolTensor
from .space import Page, Space

PAGE_SIZE = 64 << 20

REFUSED_HINT = (
    "statistics() says what is unreleased or stuck by it; it is tried again with the next call. A result from 700 on "
    "ends a context for good: end the process then"
)


@checked_class
class Pool:
    """A range of a device's addresses that never moves, and pages of memory that come and go in it.

    ``capacity`` bytes are reserved, which costs no memory; ``map`` and ``unmap`` work in whole pages of ``page_size``
    bytes, a power of two from the device's granularity to 1 GiB. ``device`` is ``"cuda:0"`` or such, or a UUID, and
    ``limit_bytes`` the most memory that it may take. Thread-safe. A forked child cannot use it.

    What was made of its memory by a library is not asked before a page goes: drop it first. ``unmap``, ``compact`` and
    ``close`` wait for the device. Close the pool, or use it in ``with``.

    Raises ``DeviceNotFound``, ``InvalidPageSize``, ``ValidationFailed``, ``FeatureUnavailable``, ``DriverFailed``.
    """

    def __init__(
        self,
        capacity: ByteCount,
        page_size: ByteCount = PAGE_SIZE,
        device: DeviceName = "cuda:0",
        *,
        limit_bytes: ByteCount | None = None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._last_page = self._last_run = 0
        self._reserve(capacity, page_size, device)

    def _reserve(self, capacity: int, page_size: int, device: str) -> None:
        driver, found = find_usable_device(device)
        check_sizes(capacity, page_size, driver.granularity(found.ordinal))
        self._mutex = threading.RLock()
        self._space = Space(driver, found, page_size, capacity // page_size)
        self._is_closed = False
        self._finalizer = weakref.finalize(self, self._space.destroy)
        # At interpreter exit the driver may have been torn down by whoever loaded it; the process's end frees all.
        self._finalizer.atexit = False

    @property
    def base_address(self) -> int:
        """Where the pool begins, as the device sees it in this process; until it is closed."""
        return self._space.base_address

    @property
    def capacity(self) -> int:
        """Bytes of addresses."""
        return self._space.page_count * self._space.page_size

    @property
    def page_size(self) -> int:
        return self._space.page_size

    @property
    def device(self) -> str:
        """This process's name of its device: ``"cuda:0"``."""
        return self._space.device.shown

    @property
    def device_uuid(self) -> str:
        return self._space.device.uuid

    @property
    def closed(self) -> bool:
        return self._is_closed

    @property
    def physical_bytes(self) -> int:
        """The device's memory that it has, in this process: what is mapped, unreleased or stuck."""
        return self._space.physical_bytes

    @property
    def mapped_bytes(self) -> int:
        """What is mapped here, and may be used."""
        return len(self._space.at) * self.page_size

    def map(self, byte_size: ByteCount, byte_offset: ByteCount | None = None) -> Run:
        """Maps new memory, all of it or none, at an offset or into the first hole that fits. What is in it is
        anybody's guess. Returns where it is.

        Raises ``OutOfRange``, ``AlreadyMapped``, ``PoolFull`` by ``limit_bytes``, ``OutOfDeviceMemory``,
        ``OutOfDescriptors``, ``DriverFailed``, ``Closed``.
        """
        with self._open() as space:
            space.retry()
            start, count = self._choose(byte_size, byte_offset)
            self._charge(byte_size)
            try:
                first = self._last_page + 1
                pages = space.create(range(first, first + count), self._last_run + 1)
                try:
                    space.place([(start + i, page) for i, page in enumerate(pages)])
                except BaseException:
                    space.release([page for page in reversed(pages) if page not in space.stuck])
                    raise
            except DriverFailed as error:
                self._refuse(error, f"map {byte_size} bytes at offset {start * self.page_size}", byte_size)
            self._last_page += count
            self._last_run += 1
            return Run(start * self.page_size, byte_size, first)

    def unmap(self, byte_offset: ByteCount, byte_size: ByteCount) -> None:
        """Waits for the device, unmaps a range and gives its memory back: pages of one run or of several. If a call
        fails before the first page is given back all stays mapped.

        Raises ``OutOfRange``, ``NotMapped``, ``DriverFailed``, ``Closed``.
        """
        with self._open() as space:
            space.retry()
            start, count = to_range(byte_offset, byte_size, self.page_size, space.page_count, "unmap")
            absent = next(to_ranges(index for index in range(start, start + count) if index not in space.at), None)
            if absent is not None:
                self._refuse_absent(absent, f"unmap {byte_size} bytes at offset {byte_offset}")
            self._unmap_at(range(start, start + count))

    def is_mapped(self, byte_offset: ByteCount, byte_size: ByteCount) -> bool:
        """Whether every byte of a range is mapped here. Raises ``OutOfRange``, ``Closed``."""
        with self._open() as space:
            if byte_offset + byte_size > self.capacity:
                raise OutOfRange(
                    f"Cannot look at {byte_size} bytes at offset {byte_offset}: the pool has {self.capacity}",
                    fields={"byte_offset": byte_offset, "byte_size": byte_size, "virtual_capacity": self.capacity},
                )
            return all(index in space.at for index in self._indices(byte_offset, byte_size))

    def tensor(self, byte_offset: ByteCount, shape: Shape, dtype: Any) -> PoolTensor:
        """A tensor over bytes that are mapped. It grows in place: one that is made at the same offset after more was
        mapped behind it begins at the same address, with what is there. It is no owner: see ``PoolTensor``.

        Raises ``NotMapped``, ``OutOfRange``, ``ValidationFailed``, ``Closed``.
        """
        # A kind's word is what is passed, and what comes is a tuple.
        sizes: Any = shape
        return PoolTensor(self, byte_offset, sizes, parse_dtype(dtype))

    def pages(self, count: Count) -> AbstractContextManager[Run]:
        """``with pool.pages(n) as run:`` maps so many pages, and unmaps at the end what is still mapped of them,
        wherever ``compact`` has moved it. Raises as ``map`` and ``unmap``.
        """
        return self._pages(self.map, count)

    @contextlib.contextmanager
    def _pages(self, map_pages: Callable[[int], Run], count: int) -> Iterator[Run]:
        run = map_pages(count * self.page_size)
        try:
            yield run
        finally:
            self._give_back(range(run.first_page, run.first_page + count))

    def trim(self) -> int:
        """Gives back what nobody maps: here, what the driver has refused to take back before. Returns the bytes that
        went. Raises ``Closed``.
        """
        with self._open() as space:
            return space.retry() * self.page_size

    def compact(self) -> list[Move]:
        """Moves runs down into the holes before them, with what is in them, in their order and each whole; so that
        what is free is one hole. It waits for the device first. Tensors over what has moved are to be made anew.

        Raises ``DriverFailed``, and nothing has moved then; ``Closed``.
        """
        with self._open() as space:
            space.retry()
            planned = plan_compaction([part for part, _ in self._parts()], space.blocked)
            numbers = {index: page.number for index, page in space.at.items()}
            try:
                if planned:
                    space.move([(start + i, to + i) for start, to, count in planned for i in range(count)])
            except DriverFailed as error:
                self._refuse(error, "compact the pool", 0)
            size = self.page_size
            return [Move(start * size, to * size, count * size, numbers[start]) for start, to, count in planned]

    def statistics(self) -> PoolStatistics:
        """What is mapped, free, unreleased and stuck, and the fragmentation of what is free. Raises ``Closed``."""
        with self._open() as space:
            size = self.page_size
            holes = list(find_holes({*space.at, *space.blocked}, space.page_count))
            free = sum(count for _, count in holes)
            largest = max((count for _, count in holes), default=0)
            runs = tuple(Run(start * size, count * size, first) for (start, count), first in self._parts())
            return PoolStatistics(
                virtual_capacity=self.capacity,
                page_size=size,
                minimum_bytes=0,
                maximum_bytes=self._limit_bytes,
                physical_bytes=space.physical_bytes,
                mapped_bytes=len(space.at) * size,
                run_count=len(runs),
                runs=runs,
                free_bytes=free * size,
                free_runs=tuple(FreeRun(start * size, count * size) for start, count in holes),
                largest_free_bytes=largest * size,
                fragmentation=1 - largest / free if free > 0 else 0.0,
                unreleased=space.shown(space.unreleased),
                stuck=space.shown(space.stuck),
                device_uuid=self.device_uuid,
            )

    def close(self) -> None:
        """Waits for the device, and gives everything back. Safe to call twice. Raises ``DriverFailed``, once, if the
        driver refused a call; what is left then the next pool of this process tries again to give back.
        """
        if self._is_closed or self._space.pid != os.getpid():
            self._is_closed = True
            return
        with self._mutex:
            self._is_closed = True
            self._finalizer.detach()
            failure = self._space.destroy()
        if failure is not None:
            failure.detail = f"Cannot let go of the pool on {self.device}: {failure.detail}"
            raise failure

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a pool cannot be pickled or copied")

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{self.mapped_bytes} of {self.capacity} bytes mapped"
        return f"<tensord.cuda.{type(self).__name__} on {self.device}, {state}>"

    @property
    def _ordinal(self) -> int:
        return self._space.device.ordinal

    @contextlib.contextmanager
    def _open(self) -> Iterator[Space]:
        """Its space, for this thread alone. Raises ``Closed``."""
        # Without the lock, which another thread of the parent may have held.
        if self._space.pid != os.getpid():
            raise Closed(
                f"Cannot use the pool on {self.device}: process {self._space.pid} made it, and this is its forked "
                f"child {os.getpid()}, where CUDA does not work",
                hint=FORK_HINT,
            )
        with self._mutex:
            if self._is_closed:
                raise Closed(f"Cannot use the pool on {self.device}: it is closed")
            yield self._space

    def _indices(self, byte_offset: int, byte_size: int) -> range:
        end = byte_offset if byte_size == 0 else byte_offset + byte_size + self.page_size - 1
        return range(byte_offset // self.page_size, end // self.page_size)

    def _choose(self, byte_size: int, byte_offset: int | None) -> Range:
        space = self._space
        taken = {*space.at, *space.blocked}
        if byte_offset is None:
            _, count = to_range(0, byte_size, self.page_size, space.page_count, "map")
            return find_first_hole(taken, space.page_count, count, self.page_size), count
        start, count = to_range(byte_offset, byte_size, self.page_size, space.page_count, "map")
        there = next(to_ranges(taken.intersection(range(start, start + count))), None)
        if there is not None:
            raise AlreadyMapped(
                f"Cannot map {byte_size} bytes at offset {byte_offset}: {there[1] * self.page_size} bytes at offset "
                f"{there[0] * self.page_size} are taken",
                fields={"byte_offset": there[0] * self.page_size, "byte_size": there[1] * self.page_size},
            )
        return start, count

    def _charge(self, byte_size: int) -> None:
        limit = self._limit_bytes
        available = byte_size if limit is None else max(0, limit - self.physical_bytes)
        if byte_size > available:
            raise PoolFull(
                f"Cannot map {byte_size} bytes: of the pool's limit, {limit}, {available} are left",
                hint="unmap something, or make the pool with a larger limit_bytes",
                fields={"requested_bytes": byte_size, "available_bytes": available, "limit_bytes": limit},
            )

    def _refuse(self, error: DriverFailed, action: str, byte_size: int) -> NoReturn:
        refuse_without_room(error)
        detail = f"Cannot {action} on {self.device}: {error.detail}"
        if error.fields["result"] == OUT_OF_MEMORY and error.fields["call"] == "cuMemCreate":
            raise OutOfDeviceMemory(
                detail,
                hint="unmap something; other processes use the device, too",
                fields={"requested_bytes": byte_size, "physical_bytes": self.physical_bytes},
            ) from error
        error.detail = detail
        error.hint = REFUSED_HINT
        raise error

    def _refuse_absent(self, absent: Range, action: str) -> NoReturn:
        size = self.page_size
        stuck = ""
        if not self._space.blocked.isdisjoint(range(absent[0], absent[0] + absent[1])):
            stuck = ", some of them stuck"
        raise NotMapped(
            f"Cannot {action}: {absent[1] * size} bytes at offset {absent[0] * size} are not mapped{stuck}",
            fields={"byte_offset": absent[0] * size, "byte_size": absent[1] * size},
        )

    def _unmap_at(self, indices: Sequence[int]) -> None:
        try:
            self._space.release(self._space.lift(indices))
        except DriverFailed as error:
            self._refuse(error, f"unmap {len(indices) * self.page_size} bytes", 0)

    def _give_back(self, numbers: range) -> None:
        """Unmaps the pages of those numbers that are mapped."""
        if self._is_closed:
            return
        with self._open() as space:
            indices = sorted(index for index, page in space.at.items() if page.number in numbers)
            if indices:
                self._unmap_at(indices)

    def _parts(self) -> list[tuple[Range, int]]:
        """The runs by their indices, each with its first page's number."""
        parts: list[tuple[Range, int]] = []
        before: Page | None = None
        for _, page in sorted(self._space.at.items()):
            if before is not None and _is_next(before, page):
                (start, count), first = parts[-1]
                parts[-1] = (start, count + 1), first
            else:
                parts.append(((page.index, 1), page.number))
            before = page
        return parts

    def _pages_of(self, byte_offset: int, byte_size: int, name: str) -> tuple[tuple[int, ...], int]:
        """The numbers of the pages of a range, and at which change they lay there. Raises ``NotMapped``, ``Closed``."""
        with self._open() as space:
            indices = self._indices(byte_offset, byte_size)
            absent = next(to_ranges(index for index in indices if index not in space.at), None)
            if absent is not None:
                self._refuse_absent(absent, f"make a tensor {name}")
            return tuple(space.at[index].number for index in indices), space.change

    def _check_pages(self, pages: Iterable[int], change: int, byte_offset: int, byte_size: int, name: str) -> int:
        """At which change those pages still lie there. Raises ``NotMapped``, ``Closed``."""
        with self._open() as space:
            if space.change != change:
                for index, number in zip(self._indices(byte_offset, byte_size), pages, strict=True):
                    page = space.at.get(index)
                    if page is None or page.number != number:
                        raise NotMapped(
                            f"Cannot use tensor {name}: its page at offset {index * self.page_size} has gone",
                            hint="make it anew with pool.tensor() once something is mapped there",
                            fields={"byte_offset": index * self.page_size, "byte_size": self.page_size},
                        )
            return space.change

    def _copy(
        self, check: Callable[[], None], byte_offset: int, host_address: int, byte_size: int, *, to_device: bool
    ) -> None:
        """Copies bytes from or to the host, if ``check`` raises nothing; no page goes meanwhile."""
        with self._open() as space:
            check()
            if byte_size > 0:
                (space.copy_in if to_device else space.copy_out)(byte_offset, host_address, byte_size)


def _is_next(before: Page, page: Page) -> bool:
    is_beside = (page.index, page.number) == (before.index + 1, before.number + 1)
    return is_beside and page.run == before.run


# A constructor is no public method by its name.
Pool.__init__ = checked(Pool.__init__)  # type: ignore[method-assign]
