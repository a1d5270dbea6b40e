"""Elastic pools of a server, followed by several processes: on a stand-in for the driver, no evidence of what a GPU
does.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import pytest
from cuda_stand_in import IMPORTED, LACKS_STAND_IN, UUIDS, StandIn, stand_in
from harness import Child, Server, rounds_of, wait_for

import tensord
import tensord.cuda

pytestmark = pytest.mark.skipif(LACKS_STAND_IN != "", reason=LACKS_STAND_IN or "there is one")

PAGE = 2 << 20
PRELUDE = """
from pool_support import *
client = tensord.connect()
"""
# Does what it is told, and answers what came of it.
WORKER = f"""{PRELUDE}
pool = client.pool("default", "cuda:0", 32 * PAGE, page_size=PAGE, moves=True)
say(pool.base_address)
for line in iter(hear, None):
    try:
        say(eval(line))
    except tensord.TensordError as error:
        say([type(error).__name__, str(error)])
client.close()
say("closed")
"""


@pytest.fixture
def cuda() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


@pytest.fixture
def cuda_server(cuda: StandIn) -> Iterator[Server]:
    server = Server(**cuda.environ)
    server.start()
    yield server
    server.stop()


def worker(cuda: StandIn, server: Server, script: str = WORKER) -> Child:
    return Child(script, environ={**cuda.environ, **server.environ}, imported=IMPORTED)


def ask(child: Child, what: str) -> object:
    child.say(what)
    return child.hear()


def pages_in_use(cuda: StandIn) -> int:
    return sum("memory" in each for each in cuda.in_use())


def pool_of(client: tensord.Client) -> tensord.cuda.PoolStatistics:
    return client._api.elastic_pool("default", UUIDS[0])


def test_what_one_maps_all_have_and_what_one_unmaps_goes_in_all(cuda: StandIn, cuda_server: Server) -> None:
    with worker(cuda, cuda_server) as first, worker(cuda, cuda_server) as second:
        base = first.hear()
        second.hear()
        assert ask(first, "pool.map(3 * PAGE, persist=True).byte_offset") == 0
        assert ask(first, "fill(pool, 0, 3 * PAGE, 7)") is None
        wait_for(lambda: ask(second, "pool.is_mapped(0, 3 * PAGE)") is True, "the other has it, too")
        assert ask(second, "content(pool)") == {"0": 7, str(PAGE): 7, str(2 * PAGE): 7}
        assert ask(second, "fill(pool, PAGE, PAGE, 9)") is None
        assert ask(first, "content(pool)") == {"0": 7, str(PAGE): 9, str(2 * PAGE): 7}
        assert pages_in_use(cuda) == 3
        # It has gone everywhere when this returns.
        assert ask(second, "pool.unmap(0, 2 * PAGE)") is None
        assert pages_in_use(cuda) == 1
        assert ask(first, "content(pool)") == {str(2 * PAGE): 7}
        # A late worker has all at once.
        with worker(cuda, cuda_server) as late:
            late.hear()
            assert ask(late, "content(pool)") == {str(2 * PAGE): 7}
            assert ask(first, "[m.to_byte_offset for m in pool.compact()]") == [0]
            for each in (first, second, late):
                wait_for(lambda each=each: ask(each, "content(pool)") == {"0": 7}, "it has moved")
            late.kill()
        with cuda_server.connect() as client:
            told = pool_of(client)
            assert (told.mapped_bytes, told.physical_bytes, len(told.runs)) == (PAGE, PAGE, 1)
            wait_for(lambda: len(pool_of(client).workers) == 2, "the killed is no worker")
            with pytest.raises(tensord.InUse, match="Cannot delete"):
                client.delete_pool("default", UUIDS[0])
            assert ask(first, "pool.base_address") == base
            for each in (first, second):
                each.say(None)
                assert each.hear() == "closed"
            assert [pool.id for pool in client.pools(model="default")] == [told.id]
            assert client.delete_pool("default", UUIDS[0]).state == "deleted"
            wait_for(lambda: pages_in_use(cuda) == 0, "the memory is free")
            with pytest.raises(tensord.ElasticPoolNotFound):
                pool_of(client)


def test_each_refusal_is_an_error_of_its_own(cuda: StandIn, cuda_server: Server) -> None:
    with worker(cuda, cuda_server) as one:
        one.hear()
        ask(one, "pool.map(2 * PAGE, 2 * PAGE).first_page")
        for call, kind in (
            ("pool.map(PAGE, 2 * PAGE)", "AlreadyMapped"),
            ("pool.map(PAGE + 1)", "OutOfRange"),
            ("pool.map(31 * PAGE)", "OutOfRange"),
            ("pool.unmap(0, PAGE)", "NotMapped"),
            ("pool.tensor(0, 4, 'F32')", "NotMapped"),
            ("client.pool('default', 'cuda:0', 16 * PAGE, page_size=PAGE)", "ElasticPoolExists"),
            ("client.pool('default', 'cuda:0', page_size=PAGE)", "ValidationFailed"),
            ("client.pool('default', 'cuda:1')", "ElasticPoolNotFound"),
            ("client.pool('absent', 'cuda:1', PAGE, page_size=PAGE)", "ModelNotFound"),
            ("client.pool('default', 'cuda:1', PAGE, page_size=3)", "InvalidPageSize"),
            ("[pool.change(maximum=3 * PAGE) and None, pool.map(2 * PAGE)]", "PoolFull"),
        ):
            answer = ask(one, call)
            assert isinstance(answer, list), (call, answer)
            assert answer[0] == kind, (call, answer)
        assert ask(one, "pool.statistics().maximum_bytes") == 3 * PAGE
        assert ask(one, "client.pool('default', 'cuda:0').mapped_bytes") == 2 * PAGE
        # What a session maps goes with it.
        one.say(None)
        assert one.hear() == "closed"
        wait_for(lambda: pages_in_use(cuda) == 0, "the memory is free")


def test_a_context_gives_its_pages_back_and_a_run_that_was_evicted_is_no_mistake(
    cuda: StandIn, cuda_server: Server
) -> None:
    script = f"""{PRELUDE}
with client.pool("default", "cuda:0", 8 * PAGE, page_size=PAGE) as pool:
    with pool.pages(2) as run:
        assert pool.mapped_bytes == physical() == 2 * PAGE
        tensor = pool.tensor(run.byte_offset, 4, "F32")
    assert pool.mapped_bytes == physical() == 0
    try:
        tensor.address
    except tensord.NotMapped as error:
        assert "has gone" in str(error)
    else:
        raise AssertionError
    with pool.pages(2) as run:
        pool.unmap(run.byte_offset, PAGE)
    pool.map(2 * PAGE)
    assert pool.trim() == 0 and pool.statistics().workers[0].taken_pages == 2
client.close()
say("done")
"""
    with worker(cuda, cuda_server, script) as child:
        assert child.hear() == "done"
        child.finish()


def test_workers_keep_what_they_map_through_a_servers_death_and_follow_the_next(
    cuda: StandIn, cuda_server: Server
) -> None:
    with worker(cuda, cuda_server) as first, worker(cuda, cuda_server) as second:
        first.hear(), second.hear()
        ask(first, "pool.map(2 * PAGE, persist=True).first_page")
        ask(first, "fill(pool, 0, 2 * PAGE, 3)")
        wait_for(lambda: ask(second, "pool.is_mapped(0, 2 * PAGE)") is True, "the other has it")
        cuda_server.signal(signal.SIGKILL)
        assert ask(second, "content(pool)") == {"0": 3, str(PAGE): 3}
        cuda_server.start()
        assert ask(second, "pool.map(PAGE, persist=True).byte_offset") == 2 * PAGE
        wait_for(lambda: ask(first, "pool.is_mapped(0, 3 * PAGE)") is True, "the first follows, too")
        ask(second, "fill(pool, 2 * PAGE, PAGE, 4)")
        assert ask(first, "content(pool)") == {"0": 3, str(PAGE): 3, str(2 * PAGE): 4}
        with cuda_server.connect() as client:
            wait_for(
                lambda: [each.is_connected for each in pool_of(client).workers] == [True, True], "both have come back"
            )
        # It waits for both of them.
        assert ask(first, "pool.unmap(0, 2 * PAGE)") is None
        assert ask(second, "content(pool)") == {str(2 * PAGE): 4}
        assert pages_in_use(cuda) == 1


def test_a_driver_that_refuses_here_is_told_and_leaves_nothing_mapped_for_the_others(
    cuda: StandIn, cuda_server: Server
) -> None:
    with worker(cuda, cuda_server) as first, worker(cuda, cuda_server) as second:
        first.hear(), second.hear()
        for call in ("cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess"):
            ask(first, f"order(FOLDER, '{call} 1 999')")
            answer = ask(first, "pool.map(2 * PAGE).byte_offset")
            assert isinstance(answer, list), answer
            assert (answer[0], call in answer[1]) == ("DriverFailed", True), answer
            ask(first, "order(FOLDER, 'none 1 2')")
            wait_for(lambda: pages_in_use(cuda) == 0, "all is given back")
        # An unmap that fails is tried again, and nothing is free before it worked.
        ask(first, "pool.map(2 * PAGE).byte_offset")
        ask(first, "order(FOLDER, 'cuMemUnmap 1 999', 'cuMemRelease 1 999')")
        assert ask(first, "pool.unmap(0, 2 * PAGE)") is None
        # The server's own driver has refused a release as well.
        ask(first, "order(FOLDER, 'none 1 2')")
        wait_for(lambda: pages_in_use(cuda) == 0, "all is given back")


def test_a_forked_child_holds_nothing_of_its_parents_pool(cuda: StandIn, cuda_server: Server) -> None:
    script = f"""{PRELUDE}
import signal
pool = client.pool("default", "cuda:0", 8 * PAGE, page_size=PAGE)
pool.map(2 * PAGE, persist=True)
child = os.fork()
if child == 0:
    try:
        pool.map(PAGE)
    except tensord.Closed:
        signal.pause()
    os._exit(1)
say(child)
hear()
"""
    with worker(cuda, cuda_server, script) as child, cuda_server.connect() as client:
        grandchild = child.hear()
        assert len(pool_of(client).workers) == 1
        child.kill()
        try:
            # The lock went with its parent, though the child lives.
            wait_for(lambda: pool_of(client).workers == (), "the killed is no worker")
            assert client.delete_pool("default", UUIDS[0]).freed_bytes == 2 * PAGE
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_two_follow_many_changes_and_cut_connections_and_have_the_same_pages_with_the_same_bytes(
    cuda: StandIn, cuda_server: Server
) -> None:
    seed = random.randrange(1 << 32)
    turns = rounds_of("elastic-followed")
    with worker(cuda, cuda_server) as first, worker(cuda, cuda_server) as second:
        workers = first, second
        for each in workers:
            each.hear()
        for turn in range(turns):
            for number, each in enumerate(workers):
                each.say(f"change_at_random(pool, {seed + 2 * turn + number}, 50)")
            for each in workers:
                assert isinstance(each.hear(), int)
            ask(workers[turn % 2], f"cut(pool, at_events_end={turn % 3 == 0})")
            # Pages move, and nobody marks them meanwhile.
            assert isinstance(ask(first, "len(pool.compact())"), int)
            with cuda_server.connect() as client:
                told = {
                    str(run.byte_offset + at): run.first_page + at // PAGE
                    for run in pool_of(client).runs
                    for at in range(0, run.byte_size, PAGE)
                }
            marks = {offset: number % 251 for offset, number in told.items()}
            for each in workers:
                wait_for(
                    lambda each=each, told=told: ask(each, "numbers(pool)") == told,
                    f"it has the server's map, at turn {turn} of seed {seed}",
                )
                assert ask(each, "content(pool)") == marks, f"turn {turn} of seed {seed}"
        for each in workers:
            ask(each, "[pool._give_back(mine) for mine in pool.mine]")
        assert pages_in_use(cuda) == 0


def test_a_process_without_descriptors_says_so_and_has_the_pages_once_it_has_some(
    cuda: StandIn, cuda_server: Server
) -> None:
    script = WORKER.replace(
        "for line",
        """
from test_descriptors import no_descriptor
def without():
    with no_descriptor():
        pool.map(2 * PAGE, persist=True)
for line""",
    )
    with worker(cuda, cuda_server) as first, worker(cuda, cuda_server, script) as second:
        first.hear(), second.hear()
        answer = ask(second, "without()")
        assert isinstance(answer, list), answer
        assert (answer[0], "EMFILE" in answer[1]) == ("OutOfDescriptors", True), answer
        # It was mapped for nobody then.
        wait_for(lambda: pages_in_use(cuda) == 0, "all is given back")
        assert ask(first, "pool.map(2 * PAGE, persist=True).byte_offset") == 0
        wait_for(lambda: ask(second, "pool.is_mapped(0, 2 * PAGE)") is True, "the other has it, too")
