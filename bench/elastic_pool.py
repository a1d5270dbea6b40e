"""The Python half of elastic-pool.ts: pages of an elastic pool beside the driver's own calls, in turns, in one process.

Usage: elastic_pool.py calls: a pool of the process's own. Or elastic_pool.py attach <url> <pages>: the server has an elastic pool of
the model `default` on the first device, in which so many pages of 2 MiB are mapped. Prints one JSON object of lists of microseconds.
"""

import gc
import json
import os
import resource
import sys
import time

import tensord
from tensord._cuda import devices
from tensord._cuda.driver import ACCESS_READ_WRITE
from tensord._elastic.attachment import PoolAttachment
from tensord.cuda import Pool

PAGE = 2 << 20
RUN = 16
ROUNDS = 200
WARM_UP = 20
ATTACHMENTS = 5
GIB = 1 << 30


class Bare:
    """The same by the driver's calls alone: nothing is checked, kept or undone."""

    def __init__(self, driver, device, byte_size):
        self.driver, self.ordinal, self.byte_size = driver, device.ordinal, byte_size
        self.context = driver.retain_context(device.ordinal)
        driver.push_context(self.context)
        self.base = driver.reserve(byte_size)
        driver.pop_context()

    def map(self, count):
        driver = self.driver
        driver.push_context(self.context)
        self.handles = [driver.create(PAGE, self.ordinal) for _ in range(count)]
        for i, handle in enumerate(self.handles):
            driver.map(self.base + i * PAGE, PAGE, handle)
        driver.set_access(self.base, count * PAGE, self.ordinal, ACCESS_READ_WRITE)
        driver.pop_context()

    def map_imported(self, fds):
        driver = self.driver
        driver.push_context(self.context)
        self.handles = [driver.import_fd(fd) for fd in fds]
        for i, handle in enumerate(self.handles):
            driver.map(self.base + i * PAGE, PAGE, handle)
        driver.set_access(self.base, len(fds) * PAGE, self.ordinal, ACCESS_READ_WRITE)
        driver.pop_context()

    def unmap(self, count):
        driver = self.driver
        driver.push_context(self.context)
        driver.synchronize()
        for i in range(count):
            driver.unmap(self.base + i * PAGE, PAGE)
        for handle in self.handles:
            driver.release(handle)
        driver.pop_context()

    def close(self):
        self.driver.push_context(self.context)
        self.driver.free_range(self.base, self.byte_size)
        self.driver.pop_context()
        self.driver.release_context(self.ordinal)


def timed(times, call):
    begin = time.perf_counter_ns()
    result = call()
    times.append((time.perf_counter_ns() - begin) / 1000)
    return result


def in_turns(times, ways):
    """``ways`` have, by name, what is timed and what takes it back."""
    for turn in range(WARM_UP + ROUNDS):
        for name, (do, undo) in ways.items():
            into = times.setdefault(name, [])
            result = timed(into if turn >= WARM_UP else [], do)
            undo(result)


def take_all(client, device):
    """A descriptor of each page of the server's pool."""
    attachment = PoolAttachment(client._api.broker, "default", device.uuid, moves=False)
    numbers, _ = attachment.fetch_map()
    fds = [os.dup(fd) for handed, _ in attachment.take(numbers.values()) for _, fd in handed]
    attachment.leave()
    return fds


def time_calls(driver, device):
    times = {}
    own, bare = Pool(4 * GIB, PAGE), Bare(driver, device, 4 * GIB)
    for count, label in ((1, "page"), (RUN, "run")):
        size = count * PAGE
        in_turns(
            times,
            {
                f"map_{label}": (
                    lambda size=size: own.map(size),
                    lambda run: own.unmap(run.byte_offset, run.byte_size),
                ),
                f"bare_map_{label}": (lambda n=count: bare.map(n), lambda _, n=count: bare.unmap(n)),
            },
        )
        for _ in range(ROUNDS):
            own.map(size)
            timed(times.setdefault(f"unmap_{label}", []), lambda size=size: own.unmap(0, size))
            bare.map(count)
            timed(times.setdefault(f"bare_unmap_{label}", []), lambda n=count: bare.unmap(n))
    own.close()
    bare.close()
    in_turns(
        times,
        {
            "reserve": (lambda: Pool(128 * GIB, 64 << 20), lambda pool: pool.close()),
            "bare_reserve": (lambda: Bare(driver, device, 128 * GIB), lambda each: each.close()),
        },
    )
    return times


def time_attachment(driver, device, url, pages):
    times = {}
    bare = Bare(driver, device, pages * PAGE)
    with tensord.connect(url) as client:
        fds = take_all(client, device)
        assert len(fds) == pages
        for _ in range(ATTACHMENTS):
            gc.collect()
            pool = timed(times.setdefault("attach", []), lambda: client.pool("default", "cuda:0"))
            assert pool.mapped_bytes == pages * PAGE
            pool.close()
            timed(times.setdefault("bare_attach", []), lambda: bare.map_imported(fds))
            bare.unmap(pages)
    bare.close()
    return times


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = devices.find_usable_device("cuda:0")
    what, *rest = sys.argv[1:]
    print(json.dumps(time_calls(*found) if what == "calls" else time_attachment(*found, rest[0], int(rest[1]))))


if __name__ == "__main__":
    main()
