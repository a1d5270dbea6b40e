"""Rings that tell by themselves what comes: what is sent is received, in order, as far as it is there; requests are
answered, once; and who is told what when somebody is late, wrong, or no longer there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, Server, wait_for
from ring_support import count_descriptors, take_all

import tensord
from tensord._mapping import futex
from tensord._ring import layout


@pytest.fixture
def ring(client: tensord.Client) -> Iterator[tensord.Ring]:
    with client.ring(slots=4, slot_bytes=4096, ttl=600) as ring:
        yield ring


@pytest.fixture
def offline() -> Iterator[tensord.Client]:
    with tensord.connect("unix:///nobody/listens.sock") as client:
        yield client


@contextlib.contextmanager
def in_threads(*tasks: Callable[[], object]) -> Iterator[None]:
    """Runs tasks beside the block, which sees to it that they end."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(task) for task in tasks]
        yield
        for future in futures:
            future.result(DEADLINE_SECONDS)


def drain(receiver: tensord.Receiver) -> list[object]:
    """All that is there, as lists."""
    found: list[object] = []
    while True:
        try:
            with receiver.receive(0) as message:
                found.append(message.numpy().tolist())
        except (tensord.DeadlineExceeded, tensord.StaleRef):
            return found


# Answers each request with what its sender says, tells what it has read, and goes on until the ring ends.
WORKER = """
ref = tensord.TensorReference.from_json(hear())
with tensord.connect("unix:///nobody/listens.sock") as offline, offline.receiver(ref, writable=True) as receiver:
    say("ready")
    for message in receiver:
        if message.is_request:
            x = message.numpy()
            message.answer(np.negative(x) if x.ndim else np.array("no"))
        else:
            say([message.dtype, message.numpy().tolist(), message.numpy().flags.writeable])
    say(receiver.lost)
"""


def test_another_process_receives_and_answers_without_server_or_socket(client: tensord.Client) -> None:
    with Child(WORKER) as child, client.ring(slots=4, slot_bytes=4096, ttl=600) as ring:
        child.say(ring.ref().to_json())
        assert child.hear() == "ready"
        ring.send(np.arange(6, dtype=np.float32).reshape(2, 3))
        with ring.acquire() as slot:
            slot.array((2,), np.int16)[:] = [7, 8]
            slot.send()
        assert child.hear() == ["F32", [[0, 1, 2], [3, 4, 5]], False]
        assert child.hear() == ["I16", [7, 8], False]
        for number in range(3 * ring.slots):
            with ring.call(np.arange(number, dtype=np.float64)) as call:
                result = call.result(DEADLINE_SECONDS)
                assert (call.dtype, call.shape, result.flags.writeable) == ("F64", (number,), False)
                assert result.tolist() == [-float(value) for value in range(number)]
        with ring.acquire() as slot:
            slot.array((2,), np.int64)[:] = [1, 2]
            with slot.call() as call:
                assert call.result(DEADLINE_SECONDS).tolist() == [-1, -2]
        # numpy makes text of it, which no ring holds: the worker ends, and says so.
        with (
            ring.call(np.float64(1)) as call,
            pytest.raises(tensord.RequestFailed, match="closed it without an answer"),
        ):
            call.result(DEADLINE_SECONDS)
    # Closed by its owner, the ring has ended for the other side.
    with Child(WORKER) as child, client.ring(slots=4, slot_bytes=4096, ttl=600) as ring:
        ring.send([5])
        child.say(ring.ref().to_json())
        assert [child.hear(), child.hear()] == ["ready", ["I64", [5], False]]
        ring.close()
        assert child.hear() == 0
        child.finish()


def test_what_was_sent_before_comes_first_unless_only_what_is_new_is_wanted(
    ring: tensord.Ring, offline: tensord.Client
) -> None:
    for number in range(7):
        ring.send([number])
    with offline.receiver(ring.ref()) as receiver, offline.receiver(ring.ref(), only_new=True) as late:
        ring.send([7])
        assert drain(receiver) == [[4], [5], [6], [7]]
        assert drain(late) == [[7]]
        assert (receiver.lost, late.lost) == (0, 0)


def test_who_is_slow_loses_the_oldest_and_is_told_how_many(ring: tensord.Ring, offline: tensord.Client) -> None:
    with offline.receiver(ring.ref()) as receiver:
        ring.send([0])
        with receiver.receive(0) as held:
            # The ring goes round it. More than its bell has entries, then more than it has slots.
            for number in range(1, 31):
                ring.send([number])
            with receiver.receive(0) as message:
                assert (message.numpy().tolist(), message.lost, receiver.lost) == ([28], 27, 27)
            assert held.numpy().tolist() == [0]
        assert drain(receiver) == [[29], [30]]
        for number in range(6):
            ring.send([number])
        assert drain(receiver) == [[2], [3], [4], [5]]
        assert receiver.lost == 29


def test_a_message_keeps_its_slot_until_it_and_its_arrays_are_gone(ring: tensord.Ring, offline: tensord.Client) -> None:
    with offline.receiver(ring.ref()) as receiver:
        ring.send([1, 2])
        array = receiver.receive(0).numpy()[:1]
        for number in range(9):
            ring.send([number])
        with pytest.raises(tensord.DeadlineExceeded):
            take_all(ring)
        assert array.tolist() == [1]
        del array
        gc.collect()
        take_all(ring)
    with pytest.raises(tensord.Closed, match="the receiver was closed here"):
        receiver.receive(0)


def test_a_closed_message_says_so_and_an_open_one_outlives_its_receiver(
    ring: tensord.Ring, offline: tensord.Client
) -> None:
    path = ring.region.descriptor.storage.path
    before = count_descriptors(path)
    receiver = offline.receiver(ring.ref())
    ring.send([1])
    message = receiver.receive(0)
    receiver.close()
    receiver.close()
    assert message.numpy().tolist() == [1]
    with offline.open(message.ref()) as tensor:
        assert tensor.numpy().tolist() == [1]
    message.close()
    message.close()
    for use in (message.numpy, message.bytes, message.ref):
        with pytest.raises(tensord.Closed, match="it was closed here"):
            use()
    del message, use
    gc.collect()
    assert count_descriptors(path) == before
    take_all(ring)


def test_a_packed_reference_goes_by_a_way_of_ones_own(ring: tensord.Ring, client: tensord.Client) -> None:
    with client.receiver(ring.ref(), writable=True) as receiver:
        with ring.acquire() as slot:
            slot.array((3,), np.int32)[:] = [1, 2, 3]
            request = slot.publish(packed=True)
        with ring.acquire() as slot:
            slot.array((3,), np.int32)[:] = 0
            lent = slot.lend(packed=True)
            with receiver.open(request) as x, receiver.open(lent, writable=True) as y:
                assert not x.numpy().flags.writeable
                array = y.numpy()
                np.negative(x.numpy(), out=array)
                with pytest.raises(tensord.DeadlineExceeded):
                    receiver.open(request, timeout=0)
            assert not array.flags.writeable
            slot.take_back(0)
            assert slot.array((3,), np.int32).tolist() == [-1, -2, -3]
        with pytest.raises(tensord.StaleRef, match="it holds something else"):
            receiver.open(lent)
        packed = ring.put(np.zeros((1, 2, 0)), packed=True)
        with receiver.open(bytearray(packed)) as message:
            assert message.shape == (1, 2, 0)
        with client.ring(slots=4, slot_bytes=4096, ttl=600) as other:
            with pytest.raises(tensord.ValidationFailed, match="it is of another ring"):
                receiver.open(other.put([1], packed=True))
        for use in (lambda: receiver.open(packed[:127]), lambda: receiver.open(ring.put([1]))):  # type: ignore[arg-type]
            with pytest.raises(tensord.ValidationFailed, match="want the 128 bytes of a packed reference"):
                use()
    with client.receiver(ring.ref()) as reader, pytest.raises(tensord.ValidationFailed, match="its receiver reads"):
        reader.open(packed, writable=True)


def test_a_result_lies_where_the_worker_puts_it(ring: tensord.Ring, offline: tensord.Client) -> None:
    def answer(send: Callable[[tensord.Message], None]) -> tensord.Call:
        call = ring.call(np.arange(4, dtype=np.int32))
        with receiver.receive(0) as message:
            send(message)
            assert message.closed
        return call

    def in_place(message: tensord.Message) -> None:
        x = message.numpy()
        message.answer(np.negative(x, out=x))
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 1

    def behind(message: tensord.Message) -> None:
        room = message.array((2, 2), "float64")
        np.copyto(room, message.numpy().reshape(2, 2) / 2)
        message.answer(room)

    def beside(message: tensord.Message) -> None:
        # Overlaps what it is copied over, and is in no order that a tensor may have.
        message.answer(message.numpy()[::-1])

    with offline.receiver(ring.ref(), writable=True) as receiver:
        results = []
        for send in (in_place, behind, beside, lambda message: message.answer([[True]])):
            with answer(send) as call:
                results.append((call.dtype if call.done and call.bytes(0) is not None else "", call.result(0).tolist()))
        assert results == [
            ("I32", [0, -1, -2, -3]),
            ("F64", [[0, 0.5], [1, 1.5]]),
            ("I32", [3, 2, 1, 0]),
            ("BOOL", [[True]]),
        ]
        for _ in range(2):
            # The second time by what is known of the first.
            with answer(lambda message: message.answer(np.full(3, 2.5))) as call:
                array = call.result(0)
                assert array.tolist() == [2.5] * 3
        # As long as an array of it lives, so does the call.
        kept = answer(lambda message: message.answer(np.full(512, 7))).result(0)
        for number in range(2 * ring.slots):
            ring.send(np.full(512, number))
        assert set(kept.tolist()) == {7}


def test_what_is_no_answer_is_refused_and_the_request_stays(ring: tensord.Ring, offline: tensord.Client) -> None:
    with offline.receiver(ring.ref(), writable=True) as receiver, ring.call(np.zeros(500)) as call:
        with receiver.receive(0) as message:
            with pytest.raises(tensord.ValidationFailed, match="it has 4104 bytes, want at most 4096"):
                message.answer(np.zeros(513))
            with pytest.raises(tensord.ValidationFailed, match="want at most 64"):
                message.array((9,), np.float64)
            with pytest.raises(tensord.ValidationFailed, match="want at most 8"):
                message.answer(np.zeros((1,) * 9))
            with pytest.raises(tensord.ValidationFailed, match="it is not here yet"):
                _ = call.dtype
            message.answer(1)
        assert call.result(0) == 1
        ring.send([1])
        with receiver.receive(0) as message:
            for use in (lambda: message.answer(1), lambda: message.fail("no"), lambda: message.array((1,), "U8")):
                with pytest.raises(tensord.ValidationFailed, match="nobody waits for an answer"):
                    use()
    for use in (call.result, call.bytes, lambda: call.done):
        with pytest.raises(tensord.Closed, match="it was closed"):
            use()


@pytest.mark.parametrize("way", ["fail", "close", "raise", "drop"])
def test_a_request_without_a_result_is_told_at_once(ring: tensord.Ring, offline: tensord.Client, way: str) -> None:
    with offline.receiver(ring.ref(), writable=True) as receiver, ring.call([1]) as call:
        message = receiver.receive(0)
        with contextlib.suppress(ZeroDivisionError):
            if way == "fail":
                message.fail("the card is on fire " + "ü" * 5000)
            elif way == "close":
                message.close()
            elif way == "raise":
                with message:
                    _ = 1 / 0
            else:
                del message
                gc.collect()
        reason = {"fail": "the card is on fire ü", "raise": "ZeroDivisionError: division by zero"}.get(
            way, "its worker closed it without an answer"
        )
        for _ in range(2):
            with pytest.raises(tensord.RequestFailed, match=reason):
                call.result(0)
        assert call.done
    take_all(ring)


def test_a_request_is_answered_once_by_one_of_many(client: tensord.Client) -> None:
    answered: list[int] = []

    def work(receiver: tensord.Receiver) -> None:
        for message in receiver:
            if not message.is_request:
                continue
            number = int(message.numpy())
            answered.append(number)
            message.answer(2 * number)

    with client.ring(slots=32, slot_bytes=64, ttl=600) as ring, contextlib.ExitStack() as stack:
        receivers = [stack.enter_context(client.receiver(ring.ref(), writable=True)) for _ in range(3)]
        reader = stack.enter_context(client.receiver(ring.ref()))
        with in_threads(*(lambda receiver=receiver: work(receiver) for receiver in receivers)):
            for start in range(0, 96, 32):
                calls = [ring.call(np.int64(start + number)) for number in range(32)]
                assert [int(call.result(DEADLINE_SECONDS)) for call in calls] == [
                    2 * (start + number) for number in range(32)
                ]
                for call in calls:
                    call.close()
                assert drain(reader) == []
            # Who only reads takes no request, and is told of nothing lost.
            ring.send([1])
            assert drain(reader) == [[1]]
            assert reader.lost == 0
            ring.close()
        assert sorted(answered) == list(range(96))


def test_a_late_caller_gives_up_and_a_late_worker_finds_another_word(
    ring: tensord.Ring, offline: tensord.Client
) -> None:
    with offline.receiver(ring.ref(), writable=True) as receiver:
        with ring.call([1]) as call:
            assert not call.done
            with pytest.raises(tensord.DeadlineExceeded, match="there is none after 0 s"):
                call.result(0)
        # Taken by one who still works on it, the slot is not the ring's.
        with ring.call([2]) as call:
            message = receiver.receive(0)
            assert receiver.lost == 1
            with pytest.raises(tensord.DeadlineExceeded):
                call.result(0.01)
        for number in range(6):
            ring.send([number])
        assert message.numpy().tolist() == [2]
        message.answer([3])
        assert drain(receiver) == [[3], [4], [5]]
        with ring.call([4]) as call, receiver.receive(0) as message:
            message.answer([5])
            assert call.result(0).tolist() == [5]


def test_nobody_waits_in_vain(ring: tensord.Ring, offline: tensord.Client) -> None:
    with offline.receiver(ring.ref()) as receiver:
        assert not receiver.wait(0)
        with pytest.raises(tensord.DeadlineExceeded, match=r"nothing was sent within 0\.01 s"):
            receiver.receive(0.01)
        with in_threads(lambda: receiver.receive(DEADLINE_SECONDS).close()):
            ring.send([1])
        with in_threads(lambda: receiver.wait(DEADLINE_SECONDS)):
            ring.send([1])
        assert drain(receiver) == [[1]]
        ring.send([2])
        ring.close()
        # What was sent before the end is received before it.
        assert receiver.wait(0)
        assert receiver.receive(0).numpy().tolist() == [2]
        for timeout in (0, 1, None):
            with pytest.raises(tensord.StaleRef, match="its owner has closed it, or died"):
                receiver.receive(timeout)
        assert receiver.wait()
        assert list(receiver) == []


def test_who_waits_for_a_slot_is_woken_by_who_lets_go(ring: tensord.Ring, offline: tensord.Client) -> None:
    with offline.receiver(ring.ref()) as receiver:
        held = []
        for number in range(ring.slots):
            ring.send([number])
            held.append(receiver.receive(0))
        with pytest.raises(tensord.DeadlineExceeded, match="all 4 are in use after 0 s, 0 of them by this process"):
            ring.send([4], timeout=0)
        sender = threading.Thread(target=ring.send, args=([4],))
        sender.start()
        mapped = ring._bell._mapped
        assert mapped is not None
        wait_for(lambda: mapped.words[layout.WANTED // 4], "the owner wants a slot")
        held.pop().close()
        sender.join(DEADLINE_SECONDS)
        assert drain(receiver) == [[4]]
        assert mapped.words[layout.WANTED // 4] == 0
        for message in held:
            message.close()


def test_threads_send_receive_and_call_at_once(client: tensord.Client) -> None:
    with client.ring(slots=256, slot_bytes=64, ttl=600) as ring, client.receiver(ring.ref(), writable=True) as receiver:
        sums: list[int] = []

        def receive() -> None:
            for message in receiver:
                if message.is_request:
                    message.answer(message.numpy() + 1)
                else:
                    sums.append(int(message.numpy().sum()))

        def send(start: int) -> None:
            for number in range(start, start + 50):
                ring.send(np.full(3, number))
                with ring.call([number]) as call:
                    assert call.result(DEADLINE_SECONDS).tolist() == [number + 1]

        with in_threads(receive, receive):
            with in_threads(lambda: send(0), lambda: send(100)):
                pass
            ring.close()
        assert sorted(sums) == [3 * number for start in (0, 100) for number in range(start, start + 50)]
        assert receiver.lost == 0


def test_asyncio_waits_in_a_thread_and_a_cancelled_task_loses_nothing(
    ring: tensord.Ring, offline: tensord.Client
) -> None:
    async def work(receiver: tensord.Receiver, found: list[object]) -> None:
        async for message in receiver:
            found.append(message.numpy().tolist())
            if message.is_request:
                message.answer(message.numpy() * 2)

    async def main() -> list[object]:
        found: list[object] = []
        with offline.receiver(ring.ref(), writable=True) as receiver:
            waiting = asyncio.create_task(work(receiver, found))
            # The loop goes on meanwhile: a task is started, waits in its thread, and is cancelled there.
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            ring.send([1])
            worker = asyncio.create_task(work(receiver, found))
            call = ring.call(np.array([2, 3]))
            assert (await asyncio.wait_for(call, DEADLINE_SECONDS)).tolist() == [4, 6]
            call.close()
            ring.close()
            await asyncio.wait_for(worker, DEADLINE_SECONDS)
        return found

    assert asyncio.run(main()) == [[1], [2, 3]]


def test_a_forked_child_receives_answers_and_ends_nothing(ring: tensord.Ring, client: tensord.Client) -> None:
    receiver = client.receiver(ring.ref(), writable=True)
    call = ring.call([1])
    message = receiver.receive(0)
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            for use in (receiver.receive, message.numpy, lambda: message.answer([2]), call.result, ring.ref):
                with pytest.raises(tensord.Closed):
                    use()
            message.close()
            receiver.close()
            call.close()
            ring.close()
            code = 0
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    # Nothing was said in the parent's name, and its locks are held.
    assert not call.done
    message.answer([3])
    assert call.result(0).tolist() == [3]
    call.close()
    ring.send([4])
    assert drain(receiver) == [[4]]
    receiver.close()


def test_rings_without_a_name_have_a_bell_too(client: tensord.Client) -> None:
    for storage in ("shm", "memfd"):
        with (
            client.ring(slots=2, slot_bytes=64, ttl=600, storage=storage, private=storage == "shm") as ring,
            client.receiver(tensord.TensorReference.from_json(ring.ref().to_json()), writable=True) as receiver,
        ):
            assert ring.ref().path is None
            with ring.call([1]) as call, receiver.receive(0) as message:
                message.answer(message.numpy() + 1)
                assert call.result(0).tolist() == [2]


def test_a_ring_of_layout_1_is_opened_and_has_no_bell(client: tensord.Client, offline: tensord.Client) -> None:
    # As owners from before there was a bell make it, by hand.
    with client.create("layout-1", tensors={"generations": ("U64", (2,)), "slots": ("U8", (2, 64))}, ttl=600) as region:
        generation = layout.to_generation(1, 1)
        region["generations"].numpy()[1] = generation
        region["slots"].numpy()[1, :8] = np.array([9]).view(np.uint8)
        slots = region["slots"].ref()
        ref = replace(
            slots, byte_offset=slots.byte_offset + 64, byte_size=8, dtype="I64", shape=(1,), generation=generation
        )
        with offline.rings() as rings, rings.open(ref) as tensor:
            assert tensor.numpy().tolist() == [9]
        for other in (ref, slots, region["generations"].ref(), replace(slots, byte_size=8, shape=(8,))):
            with pytest.raises(tensord.ValidationFailed, match="the reference is of no bell"):
                offline.receiver(other)
        with pytest.raises(tensord.ValidationFailed, match="want b'TSB2' and 2"):
            offline.receiver(replace(slots, shape=(128,)))


def test_what_reads_references_alone_opens_slots_of_a_ring_with_a_bell(
    ring: tensord.Ring, offline: tensord.Client
) -> None:
    with offline.rings() as rings, rings.open(ring.put(np.zeros((1,) * 9))) as tensor:
        assert tensor.shape == (1,) * 9
    with pytest.raises(tensord.ValidationFailed, match="Cannot send a tensor of 9 dimensions, want at most 8"):
        ring.send(np.zeros((1,) * 9))
    with offline.open(ring.ref()) as bell:
        assert bytes(bell.numpy()[:128].tobytes()).find(b"TSB2") >= 0
    take_all(ring)


def test_a_ring_of_a_later_layout_says_so(ring: tensord.Ring, offline: tensord.Client) -> None:
    mapped = ring._bell._mapped
    assert mapped is not None
    mapped.words[1] = 3
    with pytest.raises(tensord.FeatureUnavailable, match="its bell has layout 3, want 2"):
        offline.receiver(ring.ref())


def test_every_flip_of_a_bit_of_an_entry_is_a_lost_message_and_no_other(
    client: tensord.Client, offline: tensord.Client
) -> None:
    with client.ring(slots=4, slot_bytes=64, ttl=600) as ring, offline.receiver(ring.ref(), writable=True) as receiver:
        mapped = ring._bell._mapped
        assert mapped is not None
        first = ring._bell.layout.first_entry - ring._bell.layout.base
        for bit in range(1024):
            ring.send(np.full((2, 3), bit, np.float32))
            at = first + 128 * (2 * bit % ring._bell.layout.entries) + bit // 8
            mapped.raw[at] ^= 1 << bit % 8
            ring.send([bit])
            with receiver.receive(0) as message:
                assert (message.numpy().tolist(), message.lost) == ([bit], 1)
        assert receiver.lost == 1024


def test_a_reference_of_a_ring_can_be_pickled_and_nothing_else_of_it(
    ring: tensord.Ring, offline: tensord.Client
) -> None:
    with offline.receiver(pickle.loads(pickle.dumps(ring.ref())), writable=True) as receiver, ring.call([1]) as call:
        with receiver.receive(0) as message:
            for thing in (receiver, message, call):
                assert "tensord." in repr(thing)
                with pytest.raises(TypeError, match="cannot be pickled or copied"):
                    pickle.dumps(thing)
            message.answer([1])


def test_a_ring_that_is_gone_is_stale(client: tensord.Client, server: Server) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        ref = ring.ref()
        client.delete(ring.region)
    wait_for(lambda: not Path(str(ref.path)).exists(), "the ring's file is gone")
    with pytest.raises(tensord.StaleRef):
        client.receiver(ref)


def test_who_yields_to_a_third_process_sleeps_at_once_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = futex._Patience()
    yields = 0
    for _ in range(3000):
        if patience.may_poll():
            yields += 1
            patience.polled(slow=True)
    assert yields < 20
    while not patience.may_poll():
        pass
    patience.polled(slow=False)
    assert patience.may_poll()


def test_a_sleep_ends_with_its_time_where_nobody_wakes_it() -> None:
    words = memoryview(bytearray(8)).cast("I")
    address = np.frombuffer(words, np.uint8).ctypes.data
    word = futex.Word(words, 1, address)
    begun = time.monotonic()
    assert not word.wait_for_change(0, 0.01)
    assert time.monotonic() - begun >= 0.01
    assert word.wait_for_change(5, DEADLINE_SECONDS)
