"""Rings within their rules: what is taken, published, lent, stale or refused, and who waits for whom."""

from __future__ import annotations

import gc
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, REPOSITORY, Child, wait_for
from ring_support import count_descriptors, take_all

import tensord
from tensord._mapping.lease import is_leased
from tensord._mapping.lock_file import LockFile, LockKind
from tensord._ring import layout

VECTORS = REPOSITORY / "docs/protocol.md"


def test_a_tensor_goes_to_another_process_without_the_server(client: tensord.Client) -> None:
    script = """
ref = tensord.TensorReference.from_json(hear())
with tensord.connect("unix:///nobody/listens.sock") as offline, offline.open(ref) as tensor:
    say([tensor.dtype, tensor.numpy().tolist(), tensor.writable])
"""
    with client.ring(slots=4, slot_bytes=1 << 16, ttl=600) as ring, Child(script) as child:
        child.say(ring.put(np.arange(6, dtype=np.float32).reshape(2, 3)).to_json())
        assert child.hear() == ["F32", [[0, 1, 2], [3, 4, 5]], False]
        child.finish()


def test_the_layout_is_the_protocols(client: tensord.Client) -> None:
    rows = re.findall(
        r"^\| (\d) \| (\d+) \| (\d+)\D(\d+) \| (\d+) \| (\d+) \|$", VECTORS.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [row[0] for row in rows] == ["0", "2", "3"]
    with client.ring(slots=4, slot_bytes=4096, ttl=600) as ring:
        refs = [ring.put(np.zeros(4096, np.uint8)) for _ in range(12)]
        raw = Path(ring.region.descriptor.storage.path).read_bytes()
        for slot, word, first, last, generation, third in (map(int, row) for row in rows):
            begun, ref = refs[slot], refs[8 + slot]
            assert (begun.byte_offset, begun.byte_offset + begun.byte_size - 1) == (first, last)
            assert (begun.generation, ref.generation) == (generation, third)
            assert layout.word_start(generation) == word
            assert int.from_bytes(raw[word : word + 8], "little") == third
    assert "the 8 bytes at 4112\nare `02 30 00 00 00 00 00 00`" in VECTORS.read_text(encoding="utf-8")
    assert raw[4112:4120] == bytes.fromhex("0230000000000000")


def test_a_reference_is_good_until_the_ring_comes_round(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring:
        refs = [ring.put([number]) for number in range(3)]
        assert [ref.byte_offset for ref in refs] == [refs[0].byte_offset, refs[0].byte_offset + 64, refs[0].byte_offset]
        with pytest.raises(tensord.StaleRef, match="its generation is 8192, want 4096") as error:
            client.open(refs[0])
        assert error.value.fields == {"generation": 8192}
        for number in (1, 2):
            with client.open(refs[number]) as tensor:
                assert tensor.numpy().tolist() == [number]


def test_an_acquired_slot_is_stale_before_its_first_byte_is_written(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        ref = ring.put([7])
        with ring.acquire() as slot, pytest.raises(tensord.StaleRef):
            client.open(ref, timeout=0)
        assert slot.generation == 8192
        with pytest.raises(tensord.StaleRef):
            client.open(ref)


def test_a_slot_that_is_taken_while_its_reader_comes_is_stale(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        ref = ring.put([1])

        class Late(LockFile):
            def try_lock(self, kind: LockKind, start: int, length: int) -> bool:
                ring.put([2], timeout=0)
                return super().try_lock(kind, start, length)

        monkeypatch.setattr("tensord._ring.slot_tensor.LockFile", Late)
        with pytest.raises(tensord.StaleRef):
            client.open(ref)


def test_the_ring_goes_round_a_slot_that_is_open(client: tensord.Client) -> None:
    with client.ring(slots=3, slot_bytes=64, ttl=600) as ring, client.open(ring.put([42])) as held:
        starts = {ring.put([number]).byte_offset for number in range(10)}
        assert starts == {held.byte_offset + 64, held.byte_offset + 128}
        assert held.numpy().tolist() == [42]


def test_a_full_ring_waits_for_a_reader(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring, ring.acquire():
        held = client.open(ring.put([1]))
        with pytest.raises(
            tensord.DeadlineExceeded, match="all 2 are in use after 0 s, 1 of them by this process"
        ) as error:
            ring.put([2], timeout=0)
        assert error.value.fields == {"region": ring.region.id, "slots": 2, "taken_here": 1}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ring.put, [3])
            assert not waiting.done()
            held.close()
            with client.open(waiting.result(DEADLINE_SECONDS)) as tensor:
                assert tensor.numpy().tolist() == [3]


def test_many_read_one_slot(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        ref = ring.put([1])
        with client.open(ref), client.open(ref):
            with pytest.raises(tensord.DeadlineExceeded):
                ring.acquire(timeout=0)
        ring.acquire(timeout=0).close()


def test_a_slot_is_filled_in_place_and_frozen_when_published(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring:
        with ring.acquire() as slot:
            array = slot.array((2, 2), "float32")
            array[:] = [[1, 2], [3, 4]]
            ref = slot.publish()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        with client.open(ref) as tensor:
            assert tensor.numpy().tolist() == [[1, 2], [3, 4]]
        for use in (lambda: slot.array((1,), "U8"), slot.publish, slot.lend, slot.take_back):
            with pytest.raises(tensord.Closed, match="it was published or closed"):
                use()


def test_bf16_and_tensors_of_no_bytes_have_slots(client: tensord.Client) -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring:
        with client.open(ring.put(torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16))) as tensor:
            assert tensor.dtype == "BF16"
            assert tensor.torch().tolist() == [[1.5, -2.0]]
            assert torch.from_dlpack(tensor).tolist() == [[1.5, -2.0]]
        empty = ring.put(np.zeros((0, 3)))
        with client.open(empty) as tensor:
            assert tensor.numpy().shape == (0, 3)
            with pytest.raises(tensord.DeadlineExceeded):
                take_all(ring)
        take_all(ring)
        with pytest.raises(tensord.StaleRef):
            client.open(empty)


def test_what_does_not_fit_is_refused_and_loses_no_slot(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=60, ttl=600) as ring:
        assert ring.slot_bytes == 64
        for _ in range(3):
            with pytest.raises(tensord.ValidationFailed, match="it has 72 bytes, want at most 64"):
                ring.put(np.zeros(9))
        with ring.acquire(timeout=0) as slot:
            with pytest.raises(tensord.ValidationFailed, match="it has no tensor yet"):
                slot.publish()
            with pytest.raises(tensord.ValidationFailed, match="it is not lent"):
                slot.take_back()
        with pytest.raises(ZeroDivisionError), ring.acquire(timeout=0):
            _ = 1 / 0
        with client.open(ring.put(np.zeros(8), timeout=0)) as tensor:
            assert tensor.byte_size == 64


@pytest.mark.parametrize(("slots", "slot_bytes"), [(0, 64), (4097, 64), (4, 0), (4, -8), (True, 64), (2.0, 64)])
def test_a_ring_has_bounds(client: tensord.Client, slots: Any, slot_bytes: Any) -> None:
    with pytest.raises(tensord.ValidationFailed, match=r"slot(s|_bytes) is"):
        client.ring(slots=slots, slot_bytes=slot_bytes, ttl=600)


def test_the_most_slots_have_generations_of_their_own(client: tensord.Client) -> None:
    with client.ring(slots=4096, slot_bytes=8, ttl=600) as ring:
        refs = [ring.put(np.uint64(number)) for number in range(4096)]
        assert len({ref.generation for ref in refs}) == 4096
        with client.open(refs[4095]) as tensor:
            assert tensor.numpy() == 4095


def test_a_rings_region_is_made_as_any_other(client: tensord.Client) -> None:
    client.register_model("m", memory_limit_bytes=1 << 20)
    with client.ring(slots=1, slot_bytes=64, name="r", model="m", linger=5, labels={"a": "b"}) as ring:
        descriptor = ring.region.descriptor
        assert (descriptor.model, descriptor.name, dict(descriptor.labels)) == ("m", "r", {"a": "b"})
        assert descriptor.owner == tensord.Owner("linger", linger_ms=5000, handoff_ms=60_000)
        with pytest.raises(tensord.ModelLimitExceeded):
            client.ring(slots=1, slot_bytes=1 << 20, model="m", persist=True, name="s")
        # It would fit if the first one let go.
        with pytest.raises(tensord.DeadlineExceeded):
            client.ring(slots=1, slot_bytes=(1 << 20) - 8192, model="m", ttl=600, on_full="wait", deadline=0.05)


def test_a_ring_has_one_owner(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, name="r", ttl=600, if_exists="attach") as ring:
        ref = ring.put([1])
        with pytest.raises(tensord.NameTaken, match="has an owner already"):
            client.ring(slots=2, slot_bytes=64, name="r", ttl=600, if_exists="attach")
        with client.open(ref) as tensor:
            assert tensor.numpy().tolist() == [1]


def test_a_dropped_slot_is_not_lost_and_its_array_is_frozen(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        array = ring.acquire(timeout=0).array((8,), np.uint8)
        gc.collect()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        ring.acquire(timeout=0).close()


def test_a_lent_slot_is_kept_while_the_ring_goes_round(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring, ring.acquire() as slot:
        slot.array((1,), np.int64)[0] = 5
        ref = slot.lend()
        for number in range(5):
            assert ring.put([number]).byte_offset != ref.byte_offset
        with client.open(ref) as tensor:
            assert tensor.numpy().tolist() == [5]
        for use in (lambda: slot.array((1,), np.int64), slot.publish, slot.lend):
            with pytest.raises(tensord.ValidationFailed, match="it is lent"):
                use()


def test_a_result_is_written_by_another_process(client: tensord.Client) -> None:
    script = """
with tensord.connect("unix:///nobody/listens.sock") as offline:
    request, result = (tensord.TensorReference.from_json(text) for text in hear())
    with offline.open(request) as x, offline.open(result, writable=True) as y:
        np.negative(x.numpy(), out=y.numpy())
        say("written")
        hear()
    say("closed")
"""
    with client.ring(slots=2, slot_bytes=1 << 16, ttl=600) as ring, Child(script) as child:
        with ring.acquire() as request, ring.acquire() as result:
            request.array((1000,), np.float64)[:] = np.arange(1000)
            result.array((1000,), np.float64)
            written = result.lend()
            child.say([request.lend().to_json(), written.to_json()])
            assert child.hear() == "written"
            with pytest.raises(tensord.DeadlineExceeded, match="somebody still has it open"):
                result.take_back(timeout=0)
            child.say("close")
            result.take_back()
            assert result.array((1000,), np.float64).tolist() == [-float(number) for number in range(1000)]
            with pytest.raises(tensord.StaleRef):
                client.open(written, writable=True, timeout=0)
        assert child.hear() == "closed"
        take_all(ring)
        child.finish()


def test_a_reader_waits_for_who_writes_into_a_slot(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring, ring.acquire() as slot:
        slot.array((1,), np.int64)[0] = 0
        ref = slot.lend()
        writer = client.open(ref, writable=True)
        with pytest.raises(tensord.DeadlineExceeded, match="somebody else still has it locked after 0 s"):
            client.open(ref, timeout=0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.open, ref)
            writer.numpy()[0] = 9
            writer.close()
            with waiting.result(DEADLINE_SECONDS) as reader:
                assert reader.numpy().tolist() == [9]


def test_a_closed_slot_tensor_lets_go_though_its_array_lives(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        tensor = client.open(ring.put([1]))
        array = tensor.numpy()
        tensor.close()
        tensor.close()
        with client.open(ring.put([2], timeout=0)):
            assert array.tolist() == [2]
        with pytest.raises(tensord.Closed):
            tensor.numpy()


def test_a_dropped_slot_tensor_is_locked_until_its_last_array_is_gone(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        array = client.open(ring.put([1])).numpy()[:1]
        gc.collect()
        with pytest.raises(tensord.DeadlineExceeded):
            ring.acquire(timeout=0)
        assert array.tolist() == [1]
        del array
        gc.collect()
        ring.acquire(timeout=0).close()


def test_a_slot_tensor_passes_its_reference_on_and_is_locked_already(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        ref = ring.put([1])
        with client.open(ref) as tensor:
            assert tensor.ref() == ref
            with pytest.raises(tensord.FeatureUnavailable, match="opening it has locked the slot"):
                tensor.lock_read()


def test_forged_and_outlived_references_are_refused(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring:
        ref = ring.put([1])
        for generation in (1, 4097, 8192, (1 << 64) - 4096):
            with pytest.raises(tensord.StaleRef):
                client.open(replace(ref, generation=generation))
        with pytest.raises(tensord.ValidationFailed, match="generation is 4098, want that of a slot before byte 4112"):
            client.open(replace(ref, generation=4098))
        client.delete(ring.region)
        with pytest.raises(tensord.StaleRef):
            client.open(ref)


def test_a_closed_ring_says_so_and_leaves_what_was_published(client: tensord.Client) -> None:
    ring = client.ring(slots=2, slot_bytes=64, ttl=600)
    slot, ref = ring.acquire(), ring.put([1])
    ring.close()
    ring.close()
    for use in (ring.acquire, lambda: ring.put([1]), slot.publish, lambda: slot.array((1,), np.int64)):
        with pytest.raises(tensord.Closed):
            use()
    slot.close()
    with client.open(ref) as tensor:
        assert tensor.numpy().tolist() == [1]
    assert not is_leased(ref.path)
    for thing in (ring, slot):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing)


def test_threads_never_have_the_same_slot(client: tensord.Client) -> None:
    with client.ring(slots=3, slot_bytes=1 << 12, ttl=600) as ring:
        here: set[int] = set()
        guard = threading.Lock()

        def work(number: int) -> int:
            for _ in range(100):
                with ring.acquire(DEADLINE_SECONDS) as slot:
                    with guard:
                        assert slot.index not in here
                        here.add(slot.index)
                    array = slot.array((512,), np.int64)
                    array[:] = number
                    assert (array == number).all()
                    with guard:
                        here.discard(slot.index)
                    ref = slot.lend()
                    with client.open(ref) as tensor:
                        assert (tensor.numpy() == number).all()
            return number

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(work, range(6))) == list(range(6))


# Forking is tested in children: Python warns about it beside the threads of this process.
def test_a_forked_child_has_no_part_in_its_parents_ring(client: tensord.Client) -> None:
    script = """
client = tensord.connect()
ring = client.ring(slots=2, slot_bytes=64, ttl=600)
slot = ring.acquire()
slot.array((1,), np.int64)[0] = 1
opened = client.open(ring.put([2]))
pid = os.fork()
if pid == 0:
    for use in (ring.acquire, slot.publish, opened.numpy, lambda: slot.array((1,), np.int64)):
        try:
            use()
        except tensord.Closed as error:
            assert "this is its forked child" in str(error)
        else:
            os._exit(1)
    slot.close()
    opened.close()
    ring.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
try:
    ring.acquire(timeout=0)
except tensord.DeadlineExceeded:
    say(opened.numpy().tolist())
opened.close()
ref = slot.publish()
with client.open(ref) as tensor:
    say(tensor.numpy().tolist())
"""
    with Child(script) as child:
        assert child.hear() == [2]
        assert child.hear() == [1]
        child.finish()


def test_a_killed_process_frees_its_slots_though_its_forked_child_lives(client: tensord.Client) -> None:
    script = """
ref = tensord.TensorReference.from_json(hear())
opened = tensord.connect("unix:///nobody/listens.sock").open(ref)
if os.fork() == 0:
    say("forked")
    hear()
    os._exit(0)
signal.pause()
"""
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring, Child(script) as child:
        child.say(ring.put([1]).to_json())
        assert child.hear() == "forked"
        with pytest.raises(tensord.DeadlineExceeded):
            ring.acquire(timeout=0)
        child.kill()
        ring.acquire(DEADLINE_SECONDS).close()
        child.say("end")


def test_rings_stay_mapped_from_one_reference_to_the_next(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring, client.rings() as rings:
        addresses = set()
        for number in range(6):
            with rings.open(ring.put([number])) as tensor:
                assert tensor.numpy().tolist() == [number]
                assert not tensor.writable
                addresses.add(tensor.numpy().ctypes.data)
        assert len(addresses) == 2
        with ring.acquire() as slot:
            slot.array((2,), np.int64)[:] = 0
            with rings.open(slot.lend(), writable=True) as tensor:
                tensor.numpy()[:] = 8, 9
            slot.take_back(timeout=0)
            assert slot.array((2,), np.int64).tolist() == [8, 9]


def test_what_a_reader_writes_is_neither_in_later_tensors_of_the_slot_nor_in_its_neighbours(
    client: tensord.Client,
) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring, client.rings() as rings:
        first, neighbour = ring.put([1.0, 2.0]), ring.put([3.0, 4.0])
        with rings.open(first) as tensor, rings.open(neighbour) as other:
            private = tensor.numpy(private=True)
            private[:] = 9
            np.from_dlpack(tensor)
            # The same pages for all views that can be written to, and none of the others.
            assert tensor.bytes(private=True).view(np.float64).tolist() == [9, 9]
            assert tensor.numpy().tolist() == [1, 2]
            assert other.numpy().tolist() == [3, 4]
            assert other.numpy(private=True).tolist() == [3, 4]
        assert private.tolist() == [9, 9]
        for number in (5, 6, 7):
            with rings.open(ring.put([float(number)])) as later:
                assert later.numpy().tolist() == later.numpy(private=True).tolist() == [number]
        with pytest.raises(tensord.Closed):
            tensor.numpy(private=True)


def test_a_dropped_slot_tensor_is_locked_until_its_last_private_array_is_gone(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring, client.rings() as rings:
        tensor = rings.open(ring.put([1]))
        # Its file is found whatever became of the name.
        Path(ring.region.descriptor.storage.path).unlink()
        array = tensor.numpy(private=True)
        del tensor
        gc.collect()
        with pytest.raises(tensord.DeadlineExceeded):
            ring.acquire(timeout=0)
        del array
        take_all(ring)


def test_rings_lock_slots_as_open_does(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring, client.rings() as rings:
        ref = ring.put([1])
        tensor = rings.open(ref)
        with pytest.raises(tensord.DeadlineExceeded):
            ring.acquire(timeout=0)
        tensor.close()
        with pytest.raises(tensord.Closed):
            tensor.numpy()
        with pytest.raises(tensord.ValidationFailed, match="of no ring"):
            rings.open(replace(ref, generation=0))
        array = rings.open(ref).numpy()[:1]
        gc.collect()
        with pytest.raises(tensord.DeadlineExceeded):
            ring.acquire(timeout=0)
        del array
        gc.collect()
        ring.put([2], timeout=0)
        with pytest.raises(tensord.StaleRef):
            rings.open(ref)


def test_rings_let_go_of_those_that_are_gone_and_of_all_when_closed(client: tensord.Client) -> None:
    paths = []
    rings = client.rings()
    for _ in range(2):
        with client.ring(slots=2, slot_bytes=64, ttl=600) as ring:
            ref = ring.put([1])
            with rings.open(ref):
                pass
            paths.append(ref.path)
            region = ring.region
        if len(paths) == 1:
            assert client.delete(region).state == "draining"
    wait_for(lambda: client.stats().regions.draining == 0, "the first ring is gone")
    assert is_leased(paths[1])
    with rings.open(ref) as tensor:
        array = tensor.numpy()
        rings.close()
        assert tensor.numpy().tolist() == [1]
    assert is_leased(paths[1])
    del array, tensor
    assert not is_leased(paths[1])
    with pytest.raises(tensord.Closed, match="these rings were closed here"):
        rings.open(ref)


def test_a_reference_past_the_end_of_a_mapped_ring_is_stale(client: tensord.Client) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring, client.rings() as rings:
        ref = ring.put(np.zeros(64, np.uint8))
        rings.open(ref).close()
        with pytest.raises(tensord.StaleRef):
            rings.open(replace(ref, byte_size=1 << 20, shape=(1 << 20,)))


def test_slots_leave_no_descriptor_open(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600) as ring:
        path = ring.region.descriptor.storage.path
        before = count_descriptors(path)
        for _ in range(5):
            stale = ring.put([1])
            with client.open(stale):
                assert count_descriptors(path) == before + 1
            take_all(ring)
            with pytest.raises(tensord.StaleRef):
                client.open(stale)
        assert count_descriptors(path) == before
    assert count_descriptors(path) == 0
