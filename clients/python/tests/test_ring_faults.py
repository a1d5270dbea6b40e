"""Rings whose producers and consumers are killed at random, at every step: nothing torn is read, nothing stale is taken
for fresh, and no slot is lost. Each test tells its seed and what it counted; ``TEST_SEED`` repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, rounds_of, wait_for
from ring_support import take_all

import tensord

ELEMENTS = 20_000
CHANCE = 0.01
# One that reads has fewer steps to die at than one that fills.
READER_CHANCE = 0.05

# A tensor's content tells which it is and whether it is whole: its first element is its number, and the rest follows
# from it. `step` is where a process may die, by its own hand and so by the seed: mid-fill, mid-read, between two calls.
COMMON = f"""
import contextlib, random
from tensord._ring import slot_table
number_of_elements = {ELEMENTS}
chance, dice = 0.0, random.Random()
def step():
    if dice.random() < chance: os.kill(os.getpid(), signal.SIGKILL)
def fill(array, number):
    pieces = np.array_split(np.arange(number_of_elements, dtype=np.uint64), 8)
    start = 0
    for piece in pieces:
        array[start : start + piece.size] = piece * np.uint64(2654435761) + np.uint64(number)
        start += piece.size
        step()
def is_whole(array, number):
    wanted = np.arange(number_of_elements, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(number)
    return bool((array == wanted).all())
def judge(array, number):
    if is_whole(array, number): return "whole"
    return "another's" if is_whole(array, int(array[0])) else "torn"
"""

PRODUCER = (
    COMMON
    + """
seed, chance = hear()
dice.seed(seed)
raise_generation = slot_table.SlotTable.raise_generation
def dying(*arguments):
    step()
    result = raise_generation(*arguments)
    step()
    return result
slot_table.SlotTable.raise_generation = dying
ring = tensord.connect().ring(slots=4, slot_bytes=8 * number_of_elements, ttl=600)
say(ring.region.id)
def take_all():
    taken = []
    with contextlib.suppress(tensord.DeadlineExceeded):
        while len(taken) < 4: taken.append(ring.acquire(timeout=0))
    for slot in taken: slot.close()
    return len(taken)
while (numbers := hear()) is not None:
    if numbers == "take all":
        say(take_all())
        continue
    refs = []
    for number in numbers:
        with ring.acquire(timeout=60) as slot:
            fill(slot.array((number_of_elements,), np.uint64), number)
            refs.append([number, slot.publish().to_json()])
        step()
    say(refs)
say(take_all())
"""
)

CONSUMER = (
    COMMON
    + """
seed, chance = hear()
dice.seed(seed)
client = tensord.connect("unix:///nobody/listens.sock")
# Both ways to open a slot.
opener = dice.choice([client, client.rings()])
while (asked := hear()) is not None:
    number, text = asked
    try:
        tensor = opener.open(tensord.TensorReference.from_json(text))
    except tensord.StaleRef:
        say("stale")
        continue
    with tensor:
        # Again and again: its owner has time to come round.
        seen = {judge(tensor.numpy(), number) for _ in range(20)}
        step()
    step()
    say(seen.pop() if len(seen) == 1 else "torn")
"""
)


class Crew:
    """Processes of one script, each replaced when it is dead. One that ``speaks`` has a first and a last word."""

    def __init__(
        self,
        script: str,
        dice: random.Random,
        stack: contextlib.ExitStack,
        *,
        speaks: bool,
        chance: float = CHANCE,
    ) -> None:
        self._script = script
        self._dice = dice
        self._stack = stack
        self._speaks = speaks
        self._chance = chance
        self._child: Child | None = None
        self._greeted = False
        self.deaths = 0

    def begin(self, question: Any) -> None:
        """Asks a living process, and maybe kills it, wherever it happens to be."""
        if self._child is None:
            self._child = self._stack.enter_context(Child(self._script))
            self._child.say([self._dice.random(), self._chance])
            self._greeted = not self._speaks
        with contextlib.suppress(BrokenPipeError):
            self._child.say(question)
        if self._dice.random() < self._chance:
            self._child.kill()

    def end(self) -> Any:
        """Its answer; None if it died before it gave one."""
        child = self._child
        assert child is not None
        try:
            if not self._greeted:
                child.hear()
                self._greeted = True
            return child.hear()
        except AssertionError:
            # hear() fails for a process that ended: by SIGKILL is how it should.
            assert child._process.wait(DEADLINE_SECONDS) == -signal.SIGKILL, child.errors()
            self._child = None
            self.deaths += 1
            return None

    def ask(self, question: Any) -> Any:
        self.begin(question)
        return self.end()

    def finish(self) -> Any:
        """Ends the living one in order; what it said last, or None if none lives."""
        child = self._child
        if child is None:
            return None
        # It may have been killed after it answered: that is seen now.
        with contextlib.suppress(BrokenPipeError):
            child.say(None)
        last = self.end() if self._speaks else None
        assert child._process.wait(DEADLINE_SECONDS) in {0, -signal.SIGKILL}, child.errors()
        return last


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


def test_killed_producers_and_consumers_neither_tear_nor_lose(
    client: tensord.Client, dice: random.Random, counts: dict[str, int]
) -> None:
    said: dict[str | None, int] = {"whole": 0, "stale": 0, None: 0, "torn": 0, "another's": 0}
    slots_lost = 0
    least = rounds_of("python-ring")
    sent: list[list[Any]] = []
    with contextlib.ExitStack() as stack:
        producers = Crew(PRODUCER, dice, stack, speaks=True)
        consumers = [Crew(CONSUMER, dice, stack, speaks=False, chance=READER_CHANCE) for _ in range(2)]
        number = 0

        def count() -> None:
            counts.update(
                producer_deaths=producers.deaths,
                consumer_deaths=sum(crew.deaths for crew in consumers),
                whole=said["whole"],
                stale=said["stale"],
                torn=said["torn"],
                stale_taken=said["another's"],
                slots_lost=slots_lost,
            )

        count()
        while min(counts["producer_deaths"], counts["consumer_deaths"], said["whole"], said["stale"]) < least:
            number += 6
            # All at once. Late references too: of slots that are taken again, and of rings whose owner is dead.
            asked = [dice.choice(sent[-10:]) for _ in consumers] if sent else []
            producers.begin(list(range(number, number + 6)))
            for crew, question in zip(consumers, asked, strict=False):
                crew.begin(question)
            answers = [crew.end() for crew, _ in zip(consumers, asked, strict=False)]
            for answer in answers:
                said[answer] += 1
            sent.extend(producers.end() or ())
            if None in answers:
                # Nobody has a slot open now: the dead have let go of theirs.
                taken = producers.ask("take all")
                slots_lost += 0 if taken is None else 4 - taken
            count()
            assert number < 12_000, counts
        for crew in consumers:
            crew.finish()
        taken = producers.finish()
        slots_lost += 0 if taken is None else 4 - taken
        count()
    assert {what: counts[what] for what in ("torn", "stale_taken", "slots_lost")} == {
        "torn": 0,
        "stale_taken": 0,
        "slots_lost": 0,
    }


WORKER = (
    COMMON
    + """
seed, chance = hear()
dice.seed(seed)
client = tensord.connect("unix:///nobody/listens.sock")
# Both ways to open a slot.
opener = dice.choice([client, client.rings()])
while (asked := hear()) is not None:
    number, request, result = asked
    try:
        with opener.open(tensord.TensorReference.from_json(request)) as x:
            good = is_whole(x.numpy(), number)
            step()
            with opener.open(tensord.TensorReference.from_json(result), writable=True) as y:
                fill(y.numpy(), number + 1)
        say("done" if good else "torn")
    except tensord.StaleRef:
        say("stale")
"""
)


def test_a_caller_gets_whole_results_from_workers_that_are_killed(
    client: tensord.Client, dice: random.Random, counts: dict[str, int]
) -> None:
    indices = np.arange(ELEMENTS, dtype=np.uint64) * np.uint64(2654435761)
    late: list[Any] | None = None
    stale = 0
    with contextlib.ExitStack() as stack, client.ring(slots=3, slot_bytes=8 * ELEMENTS, ttl=600) as ring:
        workers = Crew(WORKER, dice, stack, speaks=False)
        number = 0
        least = rounds_of("python-ring-workers")
        while number < 60 or workers.deaths < least or stale < least / 2:
            number += 2
            with ring.acquire(DEADLINE_SECONDS) as request, ring.acquire(DEADLINE_SECONDS) as result:
                request.array((ELEMENTS,), np.uint64)[:] = indices + np.uint64(number)
                result.array((ELEMENTS,), np.uint64)[:] = 0
                asked = [number, request.lend().to_json(), result.lend().to_json()]
                answer = workers.ask(asked)
                # A worker that is dead has let go; what it left behind is not looked at.
                result.take_back(DEADLINE_SECONDS)
                if answer is not None:
                    assert answer == "done"
                    assert (result.array((ELEMENTS,), np.uint64) == indices + np.uint64(number + 1)).all()
                elif late is None:
                    late = asked
                if late is not None and late is not asked:
                    # A request that its caller gave up: its slots are others' by now, or will be.
                    with ring.acquire(DEADLINE_SECONDS):
                        again = workers.ask(late)
                    assert again in ("stale", None)
                    stale += again == "stale"
                    late = None
            counts.update(worker_deaths=workers.deaths, calls=number // 2, stale=stale)
            assert number < 4000
        workers.finish()
        take_all(ring)


@pytest.mark.parametrize("after_raise", [False, True])
def test_an_owner_that_dies_before_it_publishes_leaves_whole_tensors_or_stale_references(
    client: tensord.Client, after_raise: bool
) -> None:
    script = f"""
from tensord._ring import slot_table
ring = tensord.connect().ring(slots=2, slot_bytes=64, ttl=600)
say([ring.put(np.full(8, number)).to_json() for number in (1, 2)])
def stop():
    say("here")
    hear()
original = slot_table.SlotTable.raise_generation
def raise_generation(*arguments):
    if {after_raise}:
        result = original(*arguments)
        arguments[0].region["slots"].bytes()[:32] = 255
    stop()
slot_table.SlotTable.raise_generation = raise_generation
ring.acquire()
"""
    with Child(script) as child:
        first, second = map(tensord.TensorReference.from_json, child.hear())
        assert child.hear() == "here"
        if after_raise:
            with pytest.raises(tensord.StaleRef):
                client.open(first, timeout=0)
        else:
            with pytest.raises(tensord.DeadlineExceeded):
                client.open(first, timeout=0.01)
        child.kill()
        if after_raise:
            with pytest.raises(tensord.StaleRef):
                client.open(first, timeout=0)
        else:
            with client.open(first, timeout=0) as tensor:
                assert tensor.numpy().tolist() == [1] * 8
        with client.open(second, timeout=0) as tensor:
            assert tensor.numpy().tolist() == [2] * 8


def test_a_ring_ends_with_its_owner_and_who_has_a_slot_open_keeps_it(client: tensord.Client) -> None:
    # The owner of its region is the session, which a killed process loses at once.
    script = """
ring = tensord.connect().ring(slots=2, slot_bytes=64)
say([ring.put([number]).to_json() for number in (1, 2)])
hear()
"""
    with Child(script) as child:
        first, second = map(tensord.TensorReference.from_json, child.hear())
        with client.open(first) as tensor:
            child.kill()
            wait_for(lambda: _is_stale(client, second), "the ring is gone")
            assert tensor.numpy().tolist() == [1]


def _is_stale(client: tensord.Client, ref: tensord.TensorReference) -> bool:
    try:
        client.open(ref).close()
    except tensord.StaleRef:
        return True
    return False
