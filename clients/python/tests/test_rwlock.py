"""Read-write locks between handles, threads and processes, and what death and fork do to them."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, wait_for
from ring_support import count_descriptors

import tensord
from tensord._mapping import lease


def test_readers_share_and_a_writer_has_the_tensor_alone(client: tensord.Client) -> None:
    with client.create("t", np.zeros(10), ttl=600) as region, client.attach("t") as reader:
        with region.lock_read(), reader.lock_read(), pytest.raises(tensord.DeadlineExceeded):
            region.lock_write(timeout=0)
        with region.lock_write():
            with pytest.raises(tensord.DeadlineExceeded):
                reader.lock_read(timeout=0)
            with pytest.raises(tensord.DeadlineExceeded):
                region.lock_write(timeout=0)
        with region.lock_write(timeout=0):
            pass


def test_time_over_says_what_was_wanted_and_is_a_timeout_error(client: tensord.Client) -> None:
    with client.create("t", np.zeros(10), ttl=600) as region, region.lock_read():
        with pytest.raises(
            TimeoutError, match=r"Cannot write-lock tensor 'data' of region reg_.* after 0\.01 s"
        ) as error:
            region.lock_write(timeout=0.01)
        assert isinstance(error.value, tensord.DeadlineExceeded)
        assert error.value.code == "deadline-exceeded"
        assert error.value.fields == {"region": region.id}


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_no_time_to_wait_is_refused(client: tensord.Client, timeout: float) -> None:
    with (
        client.create("t", np.zeros(10), ttl=600) as region,
        pytest.raises(tensord.ValidationFailed, match="want seconds"),
    ):
        region.lock_read(timeout)


def test_tensors_of_one_region_are_locked_apart(client: tensord.Client) -> None:
    with client.create("t", {"a": np.zeros(3, np.uint8), "b": np.zeros(3, np.uint8)}, ttl=600) as region:
        with region["a"].lock_write(), region["b"].lock_write(timeout=0), pytest.raises(tensord.DeadlineExceeded):
            region["a"].lock_read(timeout=0)


def test_a_tensor_of_no_bytes_locks_nothing(client: tensord.Client) -> None:
    with client.create("t", {"none": np.zeros((0, 3)), "some": np.zeros(3)}, ttl=600) as region:
        with region["none"].lock_write(), region["none"].lock_write(timeout=0), region["some"].lock_write(timeout=0):
            pass


def test_who_maps_for_reading_cannot_lock_for_writing(client: tensord.Client) -> None:
    with client.create("t", np.zeros(10), ttl=600) as region, client.attach("t") as reader:
        with pytest.raises(tensord.ValidationFailed, match="it is mapped for reading"):
            reader.lock_write(timeout=0)
        region.seal()
        with reader.lock_read(timeout=0), region.lock_read(timeout=0):
            pass


def test_a_lock_ends_once_and_needs_its_region_open(client: tensord.Client) -> None:
    region = client.create("t", np.zeros(10), ttl=600)
    lock = region.lock_write()
    lock.release()
    with pytest.raises(tensord.Closed, match="it was released"):
        lock.release()
    region.close()
    with pytest.raises(tensord.Closed):
        region.lock_read()


def test_a_dropped_lock_is_released(client: tensord.Client) -> None:
    with client.create("t", np.zeros(10), ttl=600) as region:
        lock = region.lock_write()
        del lock
        gc.collect()
        with region.lock_write(timeout=0):
            pass


def test_a_lock_is_no_lease_and_is_not_pickled(client: tensord.Client) -> None:
    region = client.create("t", np.zeros(10), ttl=600)
    with region.lock_write() as lock:
        path = region.descriptor.storage.path
        region.close()
        assert not lease.is_leased(path)
        with pytest.raises(TypeError, match="take it where it is needed"):
            pickle.dumps(lock)


def test_a_deleted_region_cannot_be_locked_anew(client: tensord.Client) -> None:
    with client.create("t", np.zeros(10), ttl=600) as region:
        client.delete(region)
        with pytest.raises(tensord.StaleRef):
            region.lock_read(timeout=0)


def test_threads_and_processes_count_without_losing_one(client: tensord.Client) -> None:
    script = """
import threading
with tensord.attach("t", writable=True) as region:
    def count():
        for _ in range(100):
            with region.lock_write():
                region.numpy()[0] += 1
    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""
    with client.create("t", np.zeros(1, np.int64), ttl=600) as region:

        def count(timeout: float) -> None:
            for _ in range(100):
                with region.lock_write(timeout):
                    region.numpy()[0] += 1

        with Child(script) as first, Child(script) as second, ThreadPoolExecutor(2) as pool:
            list(pool.map(count, [DEADLINE_SECONDS] * 2))
            first.finish()
            second.finish()
        assert region.numpy()[0] == 600


def test_a_reader_never_sees_half_of_a_write(client: tensord.Client) -> None:
    script = """
with tensord.attach("t", writable=True) as region:
    array = region.numpy()
    say("begins")
    number = 0
    while True:
        number += 1
        with region.lock_write():
            array[: array.size // 2] = number
            array[array.size // 2 :] = number
"""
    with client.create("t", np.zeros(100_000, np.int64), ttl=600), Child(script) as child:
        child.hear()
        with client.attach("t") as reader:
            seen: set[int] = set()

            def look() -> bool:
                with reader.lock_read():
                    array = reader.numpy()
                    assert array.min() == array.max()
                    seen.add(int(array[0]))
                return len(seen) >= 20

            wait_for(look, "twenty writes were seen")


def test_a_killed_holder_frees_at_once_who_sleeps_in_the_kernel(client: tensord.Client) -> None:
    script = 'region = tensord.attach("t", writable=True); lock = region.lock_write(); say("locked"); hear()'
    with client.create("t", np.zeros(10), ttl=600) as region, Child(script) as child:
        child.hear()
        with pytest.raises(tensord.DeadlineExceeded):
            region.lock_read(timeout=0)
        taken = threading.Event()

        def wait() -> None:
            with region.lock_write():
                taken.set()

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        wait_for(lambda: _where(waiting) == "_fcntl", "the thread asks the kernel")
        assert not taken.is_set()
        child.kill()
        assert taken.wait(DEADLINE_SECONDS)
        waiting.join()


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "" if frame is None else frame.f_code.co_name


def test_a_killed_holder_frees_though_its_forked_child_lives(client: tensord.Client) -> None:
    script = """
region = tensord.attach("t", writable=True)
lock = region.lock_write()
if os.fork() == 0:
    say("forked")
    hear()
    os._exit(0)
signal.pause()
"""
    with client.create("t", np.zeros(10), ttl=600) as region, Child(script) as child:
        assert child.hear() == "forked"
        with pytest.raises(tensord.DeadlineExceeded):
            region.lock_write(timeout=0)
        child.kill()
        with region.lock_write(DEADLINE_SECONDS):
            assert region.refresh().has_writers, "the child of the killed one lives"
        child.say("end")


# Forking is tested in children: Python warns about it beside the threads of this process.
def test_a_forked_child_has_no_part_in_its_parents_lock(client: tensord.Client) -> None:
    script = """
region = tensord.attach("t", writable=True)
lock = region.lock_write()
pid = os.fork()
if pid == 0:
    try:
        lock.release()
    except tensord.Closed as error:
        assert f"process {os.getppid()} took it, and this is its forked child {os.getpid()}" in str(error)
    else:
        os._exit(1)
    try:
        region.lock_read(timeout=0)
    except tensord.DeadlineExceeded:
        pass
    else:
        os._exit(2)
    del lock
    os._exit(0)
say(os.waitpid(pid, 0)[1])
hear()
lock.release()
# What a child takes itself is as good as anybody's.
pid = os.fork()
if pid == 0:
    with region.lock_write():
        os._exit(0)
say(os.waitpid(pid, 0)[1])
hear()
"""
    with client.create("t", np.zeros(10), ttl=600) as region, Child(script) as child:
        assert child.hear() == 0
        with pytest.raises(tensord.DeadlineExceeded):
            region.lock_read(timeout=0)
        child.say("release")
        assert child.hear() == 0
        with region.lock_write(timeout=0):
            pass
        child.say("end")
        child.finish()


def test_locks_leave_no_descriptor_open(client: tensord.Client) -> None:
    with client.create("t", np.zeros(10), ttl=600) as region:
        path = region.descriptor.storage.path
        for _ in range(10):
            with region.lock_write():
                assert count_descriptors(path) == 1
                with pytest.raises(tensord.DeadlineExceeded):
                    region.lock_read(timeout=0)
            region.lock_read()
        assert count_descriptors(path) == 0
