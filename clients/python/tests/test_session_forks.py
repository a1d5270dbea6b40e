"""Sessions beside forks: a child forgets its parent's session at once, opens its own, and disturbs nobody."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import numpy as np
import pytest
from harness import LONG, TORCH, Child, rounds_of, wait_for

import tensord


def _sessions(client: tensord.Client) -> dict[int, tensord.SessionDescriptor]:
    """The held sessions by their process."""
    return {session.client.pid: session for session in client.sessions() if session.held}


def test_a_killed_parents_session_ends_though_its_forked_child_lives(client: tensord.Client) -> None:
    # The child has a copy of every socket, and the server sees the end of one only when the last copy is closed.
    script = """
client = tensord.connect()
region = client.create("parents", [1])
hear()
if os.fork() == 0:
    say(os.getpid())
    signal.pause()
hear()
"""
    with Child(script) as child:
        wait_for(lambda: child.pid in _sessions(client), "the session is held")
        child.say("fork")
        grandchild = child.hear()
        try:
            assert client.get("parents").state == "open"
            os.kill(child.pid, signal.SIGKILL)
            wait_for(lambda: child.pid not in _sessions(client), "its session has ended")
            with pytest.raises(tensord.RegionNotFound):
                client.get("parents")
            os.kill(grandchild, 0)
        finally:
            os.kill(grandchild, signal.SIGKILL)
    wait_for(lambda: not any(client.list()), "the grandchild's mapping is gone")


@pytest.mark.parametrize("ending", ["os._exit(0)", "client.close(); os._exit(0)", "sys.exit(0)", "os.abort()"])
def test_a_childs_end_does_not_touch_its_parents_session(client: tensord.Client, ending: str) -> None:
    script = f"""
client = tensord.connect()
region = client.create("parents", [1, 2])
id = client.session.id
hear()
pid = os.fork()
if pid == 0:
    {ending}
os.waitpid(pid, 0)
hear()
assert client.session.id == id and client.session.refresh().held
region.seal()
say("sealed")
hear()
"""
    with Child(script) as child:
        wait_for(lambda: child.pid in _sessions(client), "the session is held")
        before = _sessions(client)[child.pid]
        child.say("fork")
        child.say("go on")
        assert child.hear() == "sealed"
        assert _sessions(client)[child.pid].id == before.id
        child.finish()


def test_a_child_has_a_session_of_its_own_with_what_it_inherited(client: tensord.Client) -> None:
    script = """
client = tensord.connect()
region = client.create("parents", [1], ttl=600)
client.create("own", [1])
if os.fork() == 0:
    mine = client.create("childs", [2])
    say([os.getpid(), client.session.id])
    hear()
    os._exit(0)
os.wait()
say(client.session.id)
hear()
"""
    with Child(script) as child:
        pid, session = child.hear()
        wait_for(lambda: {child.pid, pid} <= set(_sessions(client)), "both are held")
        assert _sessions(client)[pid].id == session != _sessions(client)[child.pid].id
        assert client.get("childs").session == session

        def holders() -> set[int]:
            return {holder.client.pid for holder in client.get("parents").holders or ()}

        wait_for(lambda: holders() == {child.pid, pid}, "the inherited mapping is reported by both")
        child.say("end the child")
        assert child.hear() == _sessions(client)[child.pid].id
        wait_for(lambda: holders() == {child.pid}, "the child is no holder any more")
        with pytest.raises(tensord.RegionNotFound):
            client.get("childs")
        assert client.get("own").state == "open"


@pytest.mark.parametrize("made", ["client.create('last', [1])", "client.get_or_create('last', lambda: [1])"])
def test_a_child_that_makes_something_and_exits_at_once_leaves_no_session(client: tensord.Client, made: str) -> None:
    # Its last act is the create: nothing is ended in order, and only the end of its hold tells the server, which comes
    # late here. Within a TTL of an hour it would be too late.
    script = f"""
import time
from tensord._session import ways
class Late(ways.HoldSocket):
    def __init__(self, *arguments):
        time.sleep(0.3)
        super().__init__(*arguments)
ways.HoldSocket = Late
client = tensord.connect(session_ttl=3600)
pid = os.fork()
if pid == 0:
    {made}
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
say(pid)
"""
    with Child(script) as child:
        pid = child.hear()
        wait_for(
            lambda: all(session.client.pid != pid for session in client.sessions()), "the child's session has ended"
        )
        child.finish()


def test_forks_at_any_moment_of_an_opening_session_leave_working_children(client: tensord.Client) -> None:
    # Whatever the background thread does at the fork (connects, shakes hands, reports), its child has no such thread.
    script = """
for number in range(40):
    client = tensord.connect()
    region = client.create(None, [number])
    pid = os.fork()
    if pid == 0:
        signal.alarm(150)
        with client.create(None, [number]) as own:
            assert own.descriptor.session != region.descriptor.session
        client.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, number
    assert client.session.refresh().id == region.descriptor.session
    client.close()
say("done")
"""
    with Child(script) as child:
        assert child.hear() == "done"
        child.finish()
    assert set(_sessions(client)) <= {os.getpid()}


def test_forks_by_one_thread_while_others_use_the_client_leave_working_children(client: tensord.Client) -> None:
    script = """
import threading
client = tensord.connect()
region = client.create("shared", np.arange(100), ttl=600)
stop = threading.Event()
def attach():
    while not stop.is_set():
        client.attach("shared").close()
# Where a child fails, they must not keep this process from saying so.
threads = [threading.Thread(target=attach, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(25):
    pid = os.fork()
    if pid == 0:
        signal.alarm(150)
        assert client.attach("shared").numpy()[7] == 7
        client.get_or_create(f"built-{number}", lambda: [number])
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, number
stop.set()
for thread in threads:
    thread.join()
say(client.session.refresh().held)
"""
    with Child(script) as child:
        assert child.hear() is True
        child.finish()


def _make(name: str) -> tuple[str | None, int]:
    region = _client().create(name, np.arange(3))
    _kept.append(region)
    return region.descriptor.session, os.getpid()


def _sum(name: str) -> int:
    return int(_client().attach(name).numpy().sum())


_kept: list[tensord.Region] = []
_clients: list[tensord.Client] = []


def _client() -> tensord.Client:
    if not _clients:
        _clients.append(tensord.connect())
    return _clients[0]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pool_workers_have_a_session_each(client: tensord.Client, method: str) -> None:
    client.create("shared", np.arange(100), ttl=600).close()
    with multiprocessing.get_context(method).Pool(2) as pool:
        made = [pool.apply(_make, (f"made-{number}",)) for number in range(6)]
        assert 1 <= len({session for session, _ in made}) == len({pid for _, pid in made}) <= 2
        assert pool.map(_sum, ["shared"] * 8) == [4950] * 8
        wait_for(lambda: {pid for _, pid in made} <= set(_sessions(client)), "all are held")
    wait_for(lambda: not {pid for _, pid in made} & set(_sessions(client)), "all have ended")
    wait_for(lambda: [region.name for region in client.list()] == ["shared"], "what they owned is gone")


def test_processes_of_multiprocessing_that_are_forked_have_a_session_each(client: tensord.Client) -> None:
    # In a child, since this process has threads. Such workers end without exit hooks.
    script = """
import multiprocessing
client = tensord.connect()
region = client.create("shared", np.arange(100))
def work(name):
    with client.attach("shared") as shared:
        kept.append(client.create(name, shared.numpy()))
        return [os.getpid(), kept[-1].descriptor.session]
kept = []
with multiprocessing.get_context("fork").Pool(3) as pool:
    made = pool.map(work, [f"made-{number}" for number in range(9)], chunksize=1)
    say(made)
    hear()
say(client.session.refresh().held)
hear()
"""
    with Child(script) as child:
        made = dict(child.hear())
        wait_for(lambda: set(made) <= set(_sessions(client)), "all are held")
        assert {pid: session.id for pid, session in _sessions(client).items() if pid in made} == made
        child.say("end the pool")
        assert child.hear() is True
        wait_for(lambda: not set(made) & set(_sessions(client)), "the workers' sessions have ended")
        wait_for(lambda: [region.name for region in client.list()] == ["shared"], "what they owned is gone")


class _Rows:
    """What a torch data loader takes: a child that is forked inherits the mapping, one that is spawned attaches it."""

    def __init__(self, region: tensord.Region | None) -> None:
        self.region = region

    def __len__(self) -> int:
        return 64

    def __getitem__(self, row: int) -> tuple[Any, int]:
        region = self.region or _client().attach("rows")
        return region.torch()[row].clone(), os.getpid()


def load_rows(method: str) -> None:
    """Epochs over the region "rows", each by two workers."""
    import torch
    from torch.utils.data import DataLoader

    region = _client().attach("rows")
    assert _client().session is not None
    session = _client().session.id
    for _ in range(rounds_of("python-data-loader") if method == "spawn" else 2):
        rows: Any = _Rows(region if method == "fork" else None)
        loader = DataLoader(rows, batch_size=8, num_workers=2, multiprocessing_context=method)
        batches, pids = zip(*loader, strict=True)
        assert torch.equal(torch.cat(batches), region.torch())
        workers = set(torch.cat(pids).tolist())
        assert len(workers) == 2
        assert os.getpid() not in workers
    assert _client().session.refresh().held
    assert _client().session.id == session


# That spawned workers have a session each, and a loader's one copy, is shown by others; here two of them import torch.
_needs_long = pytest.mark.skipif(not LONG, reason="takes long: npm test -- --long")


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=_needs_long)])
def test_workers_of_a_data_loader_read_one_copy(client: tensord.Client, method: str) -> None:
    pytest.importorskip("torch", reason="the data loader is torch's")
    client.create("rows", np.arange(512, dtype=np.float32).reshape(64, 8), ttl=600).seal()
    script = f"import test_session_forks; test_session_forks.load_rows({method!r}); say('done')"
    with Child(script, imported=TORCH) as child:
        assert child.hear() == "done"
        child.finish()
    assert [region.name for region in client.list()] == ["rows"]
    wait_for(lambda: client.get("rows").in_use is False, "nobody maps it")
    wait_for(lambda: set(_sessions(client)) <= {os.getpid()}, "the workers' sessions have ended")
