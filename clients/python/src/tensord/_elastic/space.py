"""A reserved range of a device's addresses, and the pages that are mapped in it: the driver's calls for many pages at
once, and what is undone when one of them fails. It decides nothing about which page goes where.

Each method that changes pages does all of it or nothing. What cannot be undone is kept: a page whose handle the driver
does not release is *unreleased*, one that could not be unmapped or put back is *stuck*. ``retry`` tries both again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from tensord._cuda.devices import Device
from tensord._cuda.driver import ACCESS_READ_WRITE, Driver
from tensord._errors import DriverFailed
from tensord._wire.elastic_pool import KeptPage

from .layout import to_ranges

_log = logging.getLogger("tensord")

_mutex = threading.Lock()
# Closed, and not wholly taken back: the next space tries again.
_unfinished: list[Space] = []


class Page:
    """One handle. ``index`` is where it lies, or lay last; ``run`` tells the pages of one request from others'. Of one
    that is stuck ``home`` is where it is to come back to, or ``None`` if it is to go.
    """

    __slots__ = ("handle", "home", "index", "is_mapped", "number", "reason", "run", "since")

    def __init__(self, number: int, handle: int, index: int, run: int) -> None:
        self.number = number
        self.handle = handle
        self.index = index
        self.run = run
        # By the driver, whoever may use it.
        self.is_mapped = False
        self.home: int | None = None
        self.reason = ""
        self.since = ""


class Space:
    """``page_count`` places for pages of ``page_size`` bytes from ``base_address`` on, in this process's primary
    context. Not thread-safe. Every method raises ``DriverFailed``.
    """

    def __init__(self, driver: Driver, device: Device, page_size: int, page_count: int) -> None:
        _retry_unfinished()
        self.device = device
        self.page_size = page_size
        self.page_count = page_count
        self.base_address = 0
        self.pid = os.getpid()
        # By index: what is mapped, and may be used.
        self.at: dict[int, Page] = {}
        self.stuck: list[Page] = []
        self.unreleased: list[Page] = []
        # Called once, when nothing is left after ``destroy``.
        self.at_end: Callable[[], None] | None = None
        # Rises with every change of what lies where.
        self.change = 0
        self._driver = driver
        self._context: int | None = driver.retain_context(device.ordinal)
        try:
            with self.current():
                self.base_address = driver.reserve(page_count * page_size)
        except BaseException:
            self.destroy()
            raise

    @property
    def physical_bytes(self) -> int:
        """What the device's memory has of it."""
        return (len(self.at) + len(self.stuck) + len(self.unreleased)) * self.page_size

    @property
    def blocked(self) -> set[int]:
        """The places that stuck pages keep."""
        return {index for page in self.stuck for index in (page.index, page.home) if index is not None}

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes its context this thread's for a while."""
        assert self._context is not None
        self._driver.push_context(self._context)
        try:
            yield
        finally:
            self._pop()

    def _pop(self) -> None:
        for _ in range(2):
            try:
                self._driver.pop_context()
            except DriverFailed as error:
                failure = error
            else:
                return
        # What was done inside stands: to raise would say that it does not.
        _log.warning("Cannot give this thread its context back: %s", failure)

    def create(self, numbers: Iterable[int], run: int) -> list[Page]:
        """New memory for each number, mapped nowhere yet; for all of them, or none is left."""
        made: list[Page] = []
        with self.current():
            try:
                for number in numbers:
                    handle = self._driver.create(self.page_size, self.device.ordinal)
                    made.append(Page(number, handle, 0, run))
            except BaseException:
                self._release(reversed(made))
                raise
        return made

    def import_pages(self, handed: Iterable[tuple[int, int]]) -> tuple[list[Page], dict[int, DriverFailed]]:
        """The memory behind descriptors, which stay the caller's, by their pages' numbers; and why some of it could not
        be had.
        """
        pages: list[Page] = []
        failures: dict[int, DriverFailed] = {}
        with self.current():
            for number, fd in handed:
                try:
                    pages.append(Page(number, self._driver.import_fd(fd), 0, 0))
                except DriverFailed as error:
                    failures[number] = error
        return pages, failures

    def place(self, placed: Sequence[tuple[int, Page]]) -> None:
        """Maps pages at indices, one by one, and lets the device use them, with one call for those in a row. If a call
        fails none is mapped; those that then cannot be unmapped are *stuck*, and gone from the caller.
        """
        with self.current():
            done: list[Page] = []
            try:
                for index, page in placed:
                    self._map(page, index)
                    done.append(page)
                self._allow(page.index for page in done)
            except BaseException:
                for page in reversed(done):
                    try:
                        self._unmap(page)
                    except DriverFailed as error:
                        self._keep_stuck(page, home=None, error=error)
                raise
            for index, page in placed:
                self.at[index] = page
            self.change += 1

    def lift(self, indices: Sequence[int]) -> list[Page]:
        """Unmaps what lies there, one by one, once the device has done what it was told; the pages are the caller's
        then. If a call fails all are where they were but those that cannot be put back, which are *stuck*.
        """
        pages = [self.at[index] for index in indices]
        with self.current():
            # The driver does not wait by itself, and what still ran would find nothing there.
            self._driver.synchronize()
            done: list[Page] = []
            try:
                for page in pages:
                    self._unmap(page)
                    done.append(page)
            except BaseException:
                self._put_back(list(reversed(done)))
                raise
            for page in pages:
                del self.at[page.index]
            self.change += 1
        return pages

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Moves pages ``(from, to)``, with what is in them. As ``lift`` if a call fails."""
        pages = self.lift([source for source, _ in moves])
        try:
            self.place([(target, page) for (_, target), page in zip(moves, pages, strict=True)])
        except BaseException:
            there = []
            for (source, _), page in zip(moves, pages, strict=True):
                if page in self.stuck:
                    # It is where it should not be, and its bytes are wanted where they were.
                    page.home = source
                else:
                    page.index = source
                    there.append(page)
            try:
                with self.current():
                    self._put_back(there)
            except DriverFailed as error:
                for page in there:
                    self._keep_stuck(page, home=page.index, error=error)
            self.at.update((page.index, page) for page in there if page not in self.stuck)
            raise

    def release(self, pages: Sequence[Page]) -> int:
        """Gives pages that are not mapped back to the device; those that it does not take are *unreleased*. The number
        of those that went.
        """
        try:
            with self.current():
                return self._release(pages)
        except DriverFailed as error:
            # Without a context nothing is asked.
            for page in pages:
                self._keep_unreleased(page, error)
            return 0

    def retry(self) -> int:
        """Tries once more what the driver refused before. The number of pages that went to the device."""
        if not self.stuck and not self.unreleased:
            return 0
        with contextlib.suppress(DriverFailed), self.current():
            for page in list(self.stuck):
                with contextlib.suppress(DriverFailed):
                    self._retry(page)
            waiting, self.unreleased = self.unreleased, []
            return self._release(waiting)
        return 0

    def copy_in(self, byte_offset: int, host_address: int, byte_size: int) -> None:
        """Copies bytes of the host to an offset."""
        with self.current():
            self._driver.copy_to_device(self.base_address + byte_offset, host_address, byte_size)

    def copy_out(self, byte_offset: int, host_address: int, byte_size: int) -> None:
        """Copies bytes from an offset to the host."""
        with self.current():
            self._driver.copy_to_host(host_address, self.base_address + byte_offset, byte_size)

    def destroy(self) -> DriverFailed | None:
        """Takes everything back. Safe to repeat. Returns the first failure; what is left then the next space that is
        made has tried again. In a forked child nothing is done.
        """
        if self._context is None or self.pid != os.getpid():
            return None
        first = None
        try:
            with self.current():
                first = self._empty()
        except DriverFailed as error:
            first = error
        if first is None or (self.base_address == 0 and self.physical_bytes == 0):
            try:
                self._driver.release_context(self.device.ordinal)
                self._context = None
                at_end, self.at_end = self.at_end, None
                if at_end is not None:
                    at_end()
            except DriverFailed as error:
                first = first or error
        if self._context is not None:
            with _mutex:
                if self not in _unfinished:
                    _unfinished.append(self)
        return first

    def _empty(self) -> DriverFailed | None:
        first: DriverFailed | None = None
        try:
            self._driver.synchronize()
        except DriverFailed as error:
            # What runs there has failed: there is nothing to wait for.
            first = error
        pages, self.at, self.stuck = [*self.at.values(), *self.stuck], {}, []
        for page in pages:
            try:
                if page.is_mapped:
                    self._unmap(page)
            except DriverFailed as error:
                self._keep_stuck(page, home=None, error=error)
                first = first or error
            else:
                self.unreleased.append(page)
        self.change += 1
        waiting, self.unreleased = self.unreleased, []
        self._release(waiting)
        if self.unreleased:
            first = first or DriverFailed(self.unreleased[0].reason)
        if self.base_address and not self.stuck:
            try:
                self._driver.free_range(self.base_address, self.page_count * self.page_size)
                self.base_address = 0
            except DriverFailed as error:
                first = first or error
        return first

    def _map(self, page: Page, index: int) -> None:
        self._driver.map(self.base_address + index * self.page_size, self.page_size, page.handle)
        page.index, page.is_mapped = index, True

    def _unmap(self, page: Page) -> None:
        self._driver.unmap(self.base_address + page.index * self.page_size, self.page_size)
        page.is_mapped = False

    def _allow(self, indices: Iterable[int]) -> None:
        for start, count in to_ranges(indices):
            address, byte_size = self.base_address + start * self.page_size, count * self.page_size
            self._driver.set_access(address, byte_size, self.device.ordinal, ACCESS_READ_WRITE)

    def _put_back(self, pages: Sequence[Page]) -> None:
        """Maps pages where they were. What fails is kept as stuck, and wanted there."""
        back = []
        for page in pages:
            try:
                self._map(page, page.index)
                back.append(page)
            except DriverFailed as error:
                self._keep_stuck(page, home=page.index, error=error)
        for start, count in list(to_ranges(page.index for page in back)):
            try:
                self._allow(range(start, start + count))
            except DriverFailed as error:
                for page in back:
                    if start <= page.index < start + count:
                        self._keep_stuck(page, home=page.index, error=error)

    def _release(self, pages: Iterable[Page]) -> int:
        went = 0
        for page in pages:
            try:
                self._driver.release(page.handle)
                went += 1
            except DriverFailed as error:
                self._keep_unreleased(page, error)
        return went

    def _retry(self, page: Page) -> None:
        if page.is_mapped and page.index != page.home:
            self._unmap(page)
        if page.home is None:
            self.stuck.remove(page)
            self.unreleased.append(page)
        else:
            if not page.is_mapped:
                self._map(page, page.home)
            self._allow([page.home])
            self.stuck.remove(page)
            self.at[page.home] = page
        self.change += 1

    def _keep_stuck(self, page: Page, *, home: int | None, error: DriverFailed) -> None:
        page.home, page.reason, page.since = home, error.detail, _now()
        if self.at.get(page.index) is page:
            del self.at[page.index]
        self.stuck.append(page)
        self.change += 1

    def _keep_unreleased(self, page: Page, error: DriverFailed) -> None:
        page.reason, page.since = error.detail, _now()
        self.unreleased.append(page)

    def shown(self, pages: Iterable[Page]) -> tuple[KeptPage, ...]:
        """As statistics list them."""
        return tuple(KeptPage(page.number, self.page_size, page.since, page.reason) for page in pages)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _retry_unfinished() -> None:
    with _mutex:
        waiting, _unfinished[:] = _unfinished[:], []
    for space in waiting:
        space.destroy()


def _forget_in_child() -> None:
    global _mutex  # noqa: PLW0603  # another thread may have held the parent's
    _mutex = threading.Lock()
    _unfinished.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
