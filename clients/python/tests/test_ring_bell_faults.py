"""Rings with a bell whose owners, receivers and workers are killed at each step, and whose bell others write into:
nothing torn is read, nothing is answered twice, and whoever waits is told.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, rounds_of, wait_for
from ring_support import take_all

import tensord

ELEMENTS = 2000
FACTOR = np.uint64(2654435761)
CHANCE = 0.02

# Forks a process for each step that it hears of, which dies there by its own hand, and says so when that is over.
FORKS = """
import time
from tensord._ring import bell, opened_ring, outbox, slot_table
from tensord._mapping import futex
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def die_after(kind, name):
    original = getattr(kind, name)
    def dying(*arguments, **options):
        original(*arguments, **options)
        die()
    setattr(kind, name, dying)
def in_forks(run):
    while (asked := hear()) is not None:
        pid = os.fork()
        if pid == 0:
            run(*asked)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        say("dead")
"""

DYING_WORKER = (
    FORKS
    + """
def work(text, step):
    offline = tensord.connect("unix:///nobody/listens.sock")
    receiver = offline.receiver(tensord.TensorReference.from_json(text), writable=True)
    if step == "open_slot": die_after(opened_ring.OpenedRing, "open_slot")
    message = receiver.receive(60)
    if step == "take_request": die()
    if step == "write":
        message.numpy()[:] = 255
        die()
    die_after(opened_ring.OpenedRing, step)
    message.answer(message.numpy() + 1)
in_forks(work)
"""
)

DYING_OWNER = (
    FORKS
    + """
def own(step):
    ring = tensord.connect().ring(slots=4, slot_bytes=64, ttl=600)
    say(ring.ref().to_json())
    ring.send([1])
    ring.send([2])
    if step == "idle": die()
    if step == "fill": die_after(outbox.Outbox, "fill")
    if step == "unlock": die_after(slot_table.SlotTable, "give_up")
    if step == "entry":
        class Place:
            def pack_into(self, *arguments):
                PLACE.pack_into(*arguments)
                die()
        PLACE, bell.PLACE = bell.PLACE, Place()
    # Called when the tail is written.
    if step == "tail": futex.Word.wake = die
    if step == "wake": die_after(futex.Word, "wake")
    ring.send([3])
in_forks(own)
"""
)

# Keeps two workers alive, which die at random, until the ring ends; then it says how many did.
WORKERS = (
    FORKS
    + f"""
import random
text, seed = hear()
ref = tensord.TensorReference.from_json(text)
def work(number):
    dice = random.Random(seed * 1000 + number)
    def step():
        if dice.random() < {CHANCE}: die()
    def stepping(name):
        original = getattr(opened_ring.OpenedRing, name)
        def call(*arguments, **options):
            step()
            result = original(*arguments, **options)
            step()
            return result
        setattr(opened_ring.OpenedRing, name, call)
    for name in ("open_slot", "take_request", "answer", "let_go", "wake_caller"): stepping(name)
    with tensord.connect("unix:///nobody/listens.sock") as offline, offline.receiver(ref, writable=True) as receiver:
        for message in receiver:
            array = message.numpy()
            for piece in np.array_split(array, 4):
                piece += np.uint64(1)
                step()
            message.answer(array)
workers, number, ends = set(), 0, 0
while not ends or workers:
    while not ends and len(workers) < 2:
        pid = os.fork()
        if pid == 0:
            work(number)
            os._exit(0)
        workers.add(pid)
        number += 1
    pid, status = os.waitpid(-1, 0)
    workers.discard(pid)
    ends += status == 0
say(number - ends)
"""
)


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.fixture
def dice(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def counts(seed: int, record_property: Callable[[str, object], None]) -> Iterator[dict[str, int]]:
    """What a test counts, printed at its end whether it passes or not."""
    counts: dict[str, int] = {}
    yield counts
    for name, value in {"TEST_SEED": seed, **counts}.items():
        record_property(name, value)


def test_a_worker_that_dies_at_any_step_has_answered_or_its_caller_is_told(client: tensord.Client) -> None:
    with (
        Child(DYING_WORKER) as child,
        client.ring(slots=2, slot_bytes=64, ttl=600) as ring,
        client.receiver(ring.ref(), writable=True) as receiver,
    ):
        for step in ("open_slot", "take_request", "write", "answer", "let_go", "wake_caller"):
            with ring.call(np.arange(3)) as call:
                child.say([ring.ref().to_json(), step])
                assert child.hear() == "dead"
                if step == "open_slot":
                    # It had it locked, and took it not: the next one does.
                    assert not call.done
                    with receiver.receive(DEADLINE_SECONDS) as message:
                        message.answer(message.numpy() + 1)
                if step in ("take_request", "write"):
                    with pytest.raises(tensord.RequestFailed, match="whoever had taken it has died, or given it up"):
                        call.result(DEADLINE_SECONDS)
                else:
                    assert call.result(DEADLINE_SECONDS).tolist() == [1, 2, 3]
                # Nobody takes it twice, whatever became of it.
                with pytest.raises(tensord.DeadlineExceeded):
                    receiver.receive(0)
        take_all(ring)
        child.finish()


def test_an_owner_that_dies_at_any_step_has_sent_or_not_and_who_receives_is_told(client: tensord.Client) -> None:
    with Child(DYING_OWNER) as child:
        for step in ("idle", "fill", "unlock", "entry", "tail", "wake"):
            child.say([step])
            ref = tensord.TensorReference.from_json(child.hear())
            with client.receiver(ref) as receiver, ThreadPoolExecutor(1) as pool:
                # Waits while the other dies, or finds it dead.
                waiting = pool.submit(list[object], (message.numpy().tolist() for message in receiver))
                assert child.hear() == "dead"
                sent = [[1], [2], [3]] if step in ("tail", "wake") else [[1], [2]]
                assert (waiting.result(DEADLINE_SECONDS), receiver.lost) == (sent, 0)
                with pytest.raises(tensord.StaleRef, match="its owner has closed it, or died"):
                    receiver.receive()
        child.finish()


def test_who_works_for_a_caller_that_dies_is_held_up_by_nothing(client: tensord.Client) -> None:
    script = """
ring = tensord.connect().ring(slots=2, slot_bytes=64, ttl=600)
say(ring.ref().to_json())
ring.call([1]).result()
"""
    with Child(script) as child:
        ref = tensord.TensorReference.from_json(child.hear())
        with client.receiver(ref, writable=True) as receiver:
            message = receiver.receive(DEADLINE_SECONDS)
            child.kill()
            message.answer([2])
            assert list(receiver) == []


def test_a_receiver_that_dies_lets_go_of_what_it_had_open(client: tensord.Client) -> None:
    script = """
ref = tensord.TensorReference.from_json(hear())
receiver = tensord.connect("unix:///nobody/listens.sock").receiver(ref, writable=True)
messages = [receiver.receive(), receiver.receive()]
say("open")
hear()
"""
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring, Child(script) as child:
        ring.send([1])
        call = ring.call([2])
        child.say(ring.ref().to_json())
        assert child.hear() == "open"
        with pytest.raises(tensord.DeadlineExceeded):
            ring.send([3], timeout=0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ring.send, [3])
            child.kill()
            waiting.result(DEADLINE_SECONDS)
        with pytest.raises(tensord.RequestFailed, match="has died"):
            call.result(DEADLINE_SECONDS)
        call.close()
        take_all(ring)


def test_callers_of_workers_that_die_at_random_get_whole_results_or_are_told(
    client: tensord.Client, seed: int, counts: dict[str, int]
) -> None:
    least = rounds_of("python-ring-bell")
    counts.update(whole=0, told=0)
    indices = np.arange(ELEMENTS, dtype=np.uint64) * FACTOR
    with Child(WORKERS) as child, client.ring(slots=3, slot_bytes=8 * ELEMENTS, ttl=600) as ring:
        child.say([ring.ref().to_json(), seed])
        number = 0
        while counts["told"] < least or counts["whole"] < 10 * least:
            number += 1
            assert number < 1000 * least, counts
            with ring.call(indices + np.uint64(number)) as call:
                try:
                    result = call.result(DEADLINE_SECONDS)
                except tensord.RequestFailed:
                    counts["told"] += 1
                    continue
                assert (result == indices + np.uint64(number + 1)).all()
                counts["whole"] += 1
        take_all(ring, DEADLINE_SECONDS)
        ring.close()
        counts["deaths"] = child.hear()
        assert counts["deaths"] >= counts["told"]
        child.finish()


def test_what_others_write_into_a_bell_loses_messages_and_does_nothing_else(
    client: tensord.Client, dice: random.Random, counts: dict[str, int]
) -> None:
    with (
        client.ring(slots=4, slot_bytes=64, ttl=600) as ring,
        client.receiver(ring.ref(), writable=True) as receiver,
    ):
        mapped = ring._bell._mapped
        assert mapped is not None
        raw = mapped.raw
        entries = ring._bell.layout.entries

        def write() -> None:
            for _ in range(dice.randrange(4)):
                start = dice.choice((64, 128, dice.randrange(192, len(raw) - 8)))
                size = dice.choice((1, 4, 8))
                raw[start : start + size] = dice.randbytes(size)

        def take() -> list[int]:
            found = []
            with contextlib.suppress(tensord.DeadlineExceeded):
                # A tail that somebody writes may bring back what is still there.
                while len(found) < 4 * entries:
                    with receiver.receive(0) as message:
                        found.append(int(message.numpy()[0]))
                        if message.is_request:
                            message.answer(message.numpy() + 1)
            return found

        counts.update(answered=0, failed=0)
        for number in range(rounds_of("python-ring-hostile-bell")):
            write()
            if number % 4:
                ring.send([number])
                assert set(take()) <= set(range(number + 1))
                continue
            with ring.call([number]) as call:
                write()
                assert set(take()) <= set(range(number + 1))
                try:
                    assert call.result(0).tolist() == [number + 1]
                    counts["answered"] += 1
                except (tensord.DeadlineExceeded, tensord.RequestFailed):
                    counts["failed"] += 1
        # Left alone it is as before, once its entries are new.
        for _ in range(2 * entries):
            ring.send([-1])
        take()
        for number in range(8):
            ring.send([number])
            assert take() == [number]
        with ring.call([1]) as call:
            assert take() == [1]
            assert call.result(0).tolist() == [2]
        take_all(ring)
        assert counts["answered"] > 0 < counts["failed"]


def test_a_lock_that_somebody_keeps_delays_a_message_and_no_time_limit(client: tensord.Client) -> None:
    with (
        client.ring(slots=2, slot_bytes=64, ttl=600) as ring,
        client.receiver(ring.ref(), writable=True) as receiver,
    ):
        with ring.acquire() as slot:
            slot.array((1,), np.int64)[0] = 5
            ref = slot.publish()
        # Sent as owners do, while another writes there: what is read is what he leaves.
        generation, start = ref.generation, ref.byte_offset
        with client.open(ref, writable=True) as writer:
            entry = ring._outbox.entry_of(ring._outbox.kind_of("I64", (1,)), 0)
            ring._bell.ring(entry, generation, start)
            with pytest.raises(tensord.DeadlineExceeded):
                receiver.receive(0.01)
            writer.numpy()[0] = 6
        with receiver.receive(DEADLINE_SECONDS) as message:
            assert message.numpy().tolist() == [6]
        wait_for(lambda: not receiver.wait(0), "nothing is left")
        assert receiver.lost == 0
