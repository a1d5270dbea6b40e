"""Several processes over one region: what they see of each other, and what is left when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest
from harness import Child, Server, wait_for

import tensord
from tensord._mapping import lease


def test_two_processes_see_each_others_writes(client: tensord.Client) -> None:
    script = """
w = tensord.attach("shared", writable=True).numpy()
say(w.tolist())
w[1] = 11
say("written")
hear()
say(w.tolist())
"""
    with client.create("shared", np.array([1, 2, 3]), ttl=600) as region, Child(script) as child:
        assert child.hear() == [1, 2, 3]
        assert child.hear() == "written"
        assert region.numpy()[1] == 11
        region.numpy()[2] = 33
        child.say("look")
        assert child.hear() == [1, 11, 33]
        child.finish()


def test_a_reader_in_another_process_sees_writes_in_pages_it_has_not_touched(client: tensord.Client) -> None:
    script = 'r = tensord.attach("shared").numpy(); say(int(r[0])); hear(); say([int(r[0]), int(r[-1])])'
    with client.create("shared", np.zeros(100_000), ttl=600) as region, Child(script) as child:
        assert child.hear() == 0
        region.numpy()[[0, -1]] = 4, 5
        child.say("look")
        assert child.hear() == [4, 5]


@pytest.mark.parametrize("writable", [False, True])
def test_a_killed_process_leaves_no_lease(client: tensord.Client, writable: bool) -> None:
    client.create("shared", np.zeros(1000), ttl=600).close()
    path = client.get("shared").storage.path
    script = f'w = tensord.attach("shared", writable={writable}); keep = w.numpy(); w.close(); say("mapped"); hear()'
    with Child(script) as child:
        child.hear()
        assert lease.is_leased(path)
        assert lease.has_writer(path) is writable
        child.kill()
    assert not lease.is_leased(path)
    assert not lease.has_writer(path)


def test_a_deleted_region_drains_until_its_last_process_dies(server: Server, client: tensord.Client) -> None:
    client.create("shared", np.zeros(1000), ttl=600).close()
    with Child('w = tensord.attach("shared"); say("mapped"); hear()') as child:
        child.hear()
        assert client.delete(client.get("shared")).state == "draining"
        assert server.region_names() == []
        assert client.stats().regions.draining == 1
        child.kill()
        wait_for(lambda: client.stats().regions.draining == 0, "the region is gone")


def test_a_reference_crosses_processes_without_a_server(client: tensord.Client) -> None:
    script = """
ref = tensord.TensorReference.from_dict(hear())
with tensord.connect("unix:///nobody/listens.sock") as offline, offline.open(ref) as tensor:
    say(tensor.numpy().tolist())
"""
    with client.create("shared", [[1, 2], [3, 4]], ttl=600) as region, Child(script) as child:
        child.say(region.ref().to_dict())
        assert child.hear() == [[1, 2], [3, 4]]
        child.finish()


def test_references_are_sent_between_processes_by_multiprocessing(client: tensord.Client) -> None:
    with (
        client.create("shared", np.arange(1000), ttl=600) as region,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        assert pool.apply(_sum_of, (region.ref(),)) == 499_500
        with pytest.raises(TypeError, match=r"send tensor\.ref\(\)"):
            pool.apply(_sum_of, (region["data"],))


def _sum_of(ref: tensord.TensorReference) -> int:
    with tensord.connect("unix:///nobody/listens.sock") as offline, offline.open(ref) as tensor:
        return int(tensor.numpy().sum())


# Forking is tested in children: Python warns about it beside the threads of this process.
def test_a_forked_child_keeps_the_mapping_and_its_lease(client: tensord.Client) -> None:
    script = """
client = tensord.connect()
region = client.create("forked", np.zeros(1000), ttl=600)
array = region.numpy()
to_child, from_child = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    array[1] = 1
    os.write(from_child[1], b"x")
    os.read(to_child[0], 1)
    assert array[2] == 2
    # A connection of its own, and a finalizer that ends the child's mapping alone.
    assert client.get("forked").has_writers
    del array
    region.close()
    os._exit(0)
os.read(from_child[0], 1)
assert array[1] == 1
array[2] = 2
try:
    region.seal()
    say("sealed")
except tensord.RegionHasWriters as error:
    say(type(error).__name__)
assert region.writable
region.close()
del array
say(region.descriptor.storage.path)
hear()
os.write(to_child[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
say("child ended")
hear()
"""
    with Child(script) as child:
        assert child.hear() == "RegionHasWriters"
        path = child.hear()
        assert lease.has_writer(path)
        child.say("go on")
        assert child.hear() == "child ended"
        assert not lease.is_leased(path)
        child.say("end")
        child.finish()


def test_a_forked_server_of_workers_shares_one_read_only_mapping(client: tensord.Client) -> None:
    script = """
region = tensord.attach("weights")
array, tensor = region.numpy(), region["data"]
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        assert array.sum() == 499500 and tensor.numpy()[999] == 999
        assert tensord.attach("weights", timeout=60).numpy()[5] == 5
        os._exit(0)
    pids.append(pid)
say([os.waitpid(pid, 0)[1] for pid in pids])
say(int(tensord.attach("weights").numpy()[7]))
"""
    with client.create("weights", np.arange(1000), ttl=600) as region:
        region.seal()
        with Child(script) as child:
            assert child.hear() == [0, 0, 0]
            assert child.hear() == 7
            child.finish()


def test_an_interpreter_ends_in_order_with_views_alive(client: tensord.Client) -> None:
    script = """
import atexit, threading, time
region = tensord.attach("weights")
array = region.numpy()
module_level = region["data"].torch() if "torch" in sys.argv else None
atexit.register(lambda: say(int(array.sum())))
class Late:
    def __del__(self): os.write(1, b'"%d"\\n' % int(array[5]))
late = Late()
late.self = late
spinning = threading.Thread(target=lambda: [array.sum() for _ in iter(int, 1)], daemon=True)
spinning.start()
"""
    with client.create("weights", np.arange(1000), ttl=600), Child(script) as child:
        assert child.hear() == 499_500
        child.finish()


def test_a_worker_that_ends_without_close_ends_its_lease(client: tensord.Client) -> None:
    with Child(
        'r = tensord.connect().create("left", [1, 2], ttl=600); say(r.descriptor.storage.path); hear()'
    ) as child:
        path = child.hear()
        assert lease.has_writer(path)
        child.finish()
    assert not lease.is_leased(path)


def test_sigterm_needs_no_handler(client: tensord.Client) -> None:
    with Child('r = tensord.connect().create("left", [1], ttl=600); say(r.descriptor.storage.path); hear()') as child:
        path = child.hear()
        os.kill(child.pid, signal.SIGTERM)
        wait_for(lambda: not lease.is_leased(path), "the lease is gone")
