"""Attach against seal, replace and delete, many times over: whoever gets a region gets a whole one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from harness import DEADLINE_SECONDS, Child, Server, wait_for

import tensord
from tensord._mapping import lease

TURNS = 100


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert errors == []


def test_of_many_that_create_one_name_exactly_one_has_created_it(server: Server, client: tensord.Client) -> None:
    for turn in range(20):
        made: list[int] = []
        data = np.full(1000, turn)

        def work(number: int, name: str = f"n{turn}", data: np.ndarray = data, made: list[int] = made) -> None:
            with client.create(name, data, ttl=600, if_exists="attach") as region:
                if region.created:
                    made.append(number)
                    _seal_when_free(region)
            with client.attach(name, timeout=DEADLINE_SECONDS) as attached:
                assert (attached.numpy() == data).all()

        _in_threads(6, work)
        assert len(made) == 1


def _seal_when_free(region: tensord.Region) -> None:
    def try_to_seal() -> bool:
        try:
            return region.seal().state == "sealed"
        except tensord.RegionHasWriters:
            return False

    wait_for(try_to_seal, "the other writers have let go")


def _wait_for_no_writer(region: tensord.Region) -> None:
    path = region.descriptor.storage.path
    wait_for(lambda: not lease.has_writer(path), "nobody holds the writer lock")


def test_a_seal_that_succeeds_leaves_no_writer_behind(server: Server, client: tensord.Client) -> None:
    script = """
import time
client = tensord.connect()
say("ready")
for turn in range(100):
    while True:
        try:
            with client.attach(f"n{turn}", writable=True) as region:
                region.numpy()[0] += 1
        except tensord.RegionNotFound:
            continue
        except tensord.RegionBusy:
            continue
        except tensord.RegionSealed:
            break
say("done")
"""
    with Child(script) as child:
        child.hear()
        for turn in range(TURNS):
            with client.create(f"n{turn}", np.zeros(10, np.int64), ttl=600) as region:
                _seal_when_free(region)
                before = region.numpy().copy()
                # One that is between its lock and its check still looks like a writer, but will not map.
                _wait_for_no_writer(region)
                before = region.numpy().copy()
                with client.attach(f"n{turn}") as attached:
                    assert np.array_equal(attached.numpy(), before)
                assert np.array_equal(region.numpy(), before)
        assert child.hear() == "done"
        child.finish()


def test_a_replaced_name_is_always_one_whole_region(server: Server, client: tensord.Client) -> None:
    script = """
client = tensord.connect()
say("ready")
last = -1
while last < 99:
    with client.attach("current", timeout=180) as region:
        array = region.numpy()
        first = int(array[0])
        assert region.state == "sealed" and (array == first).all() and first >= last
        last = first
say("done")
"""
    with Child(script) as first, Child(script) as second:
        for child in (first, second):
            assert child.hear() == "ready"
        for turn in range(TURNS):
            with client.create("current", np.full(20_000, turn), ttl=600, if_exists="replace") as region:
                region.seal()
        for child in (first, second):
            assert child.hear() == "done"
            child.finish()


def test_a_region_deleted_under_its_readers_stays_whole_until_they_let_go(
    server: Server, client: tensord.Client
) -> None:
    stop = threading.Event()

    def read(_: int) -> None:
        while not stop.is_set():
            try:
                region = client.attach("shortlived")
            except (tensord.RegionNotFound, tensord.RegionDraining, tensord.RegionBusy):
                continue
            with region:
                array = region.numpy()
                assert (array == array[0]).all()

    def make(_: int) -> None:
        try:
            for turn in range(TURNS):
                with client.create("shortlived", np.zeros(1000), ttl=600) as region:
                    region.numpy()[:] = 0
                    region.seal()
                    client.delete(region)
                    assert region.numpy().sum() == 0, turn
        finally:
            stop.set()

    _in_threads(4, lambda number: make(number) if number == 0 else read(number))
