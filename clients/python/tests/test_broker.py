"""What has no name that this process can open is mapped by a descriptor from the broker, and works like any other."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Child, Server, wait_for
from test_descriptors import links

import tensord
from tensord._transport.broker import Broker, beside
from tensord._transport.endpoint import Endpoint, find_endpoint
from tensord._transport.transport import Transport

FDS = """
def fds(): return len(os.listdir("/proc/self/fd"))
"""


@pytest.mark.parametrize("how", [{"storage": "memfd"}, {"private": True}])
def test_everything_works_by_descriptor(client: tensord.Client, server: Server, how: dict[str, Any]) -> None:
    with client.create("r", {"w": np.arange(2000.0), "v": [1, 2]}, ttl=600, **how) as region:
        assert region.attached_by == "descriptor"
        assert "by descriptor" in repr(region)
        array = region["w"].numpy()
        with region["w"].lock_write():
            array[0] = 7
        with client.attach("r", writable=True) as second:
            second["v"].numpy()[1] = 22
            with pytest.raises(tensord.DeadlineExceeded), second["v"].lock_read(), region["v"].lock_write(0.05):
                pass
            with pytest.raises(tensord.RegionHasWriters):
                region.seal()
            assert region.writable
        with region["v"].lock_read():
            region.seal(checksum=True)
        assert not array.flags.writeable
        assert client.verify(region).ok
        with region.lock_memory(), region.pin(lambda *_: None, read_only=True) as pin:
            assert pin["v"].bytes()[8] == 22
        reference = region["w"].ref()
        assert (reference.path, reference.instance) == (None, server.instance)
        text = reference.to_json()
        with client.open(tensord.TensorReference.from_json(text)) as tensor:
            assert tensor.numpy()[0] == 7
            assert tensor.ref() == reference
            tensor.numpy(private=True)[0] = 8
        with client.attach(["r"], strict=True) as (member,):
            assert member["w"].numpy()[0] == 7
            assert member.attached_by == "descriptor"
        with pytest.raises(tensord.RegionSealed):
            client.attach("r", writable=True)
    del array
    wait_for(lambda: client.get("r").in_use is False, "every lease has ended")


def test_rings_work_by_descriptor(client: tensord.Client) -> None:
    with client.ring(slots=2, slot_bytes=64, ttl=600, storage="memfd") as ring, client.rings() as rings:
        for value in range(5):
            with rings.open(ring.put([value])) as tensor:
                assert tensor.numpy().tolist() == [value]
                tensor.numpy(private=True)[0] = 99
        lent = ring.acquire()
        lent.array((1,), "I64")[0] = 3
        with client.open(lent.lend(), writable=True) as tensor:
            tensor.numpy()[0] = 4
        lent.take_back()
        assert lent.array((1,), "I64")[0] == 4
        lent.close()
        # Kept whole: one mapping for all that was opened.
        assert len(rings._mapped) == 1


def test_a_builder_and_who_waits_for_it_get_descriptors(client: tensord.Client) -> None:
    with client.get_or_create("built", lambda: [1, 2, 3], linger=0, handoff=600, storage="memfd") as built:
        assert (built.created, built.state, built.attached_by) == (True, "sealed", "descriptor")
    wait_for(lambda: not any(client.list()), "it has ended with its lease")


def test_a_region_with_a_name_is_attached_by_it(client: tensord.Client) -> None:
    with client.create("named", [1], ttl=600) as region:
        region.seal()
        assert region.attached_by == "name"
        assert "by descriptor" not in repr(region)
        assert client._api.broker._sock is None


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount, and unshare(1) is needed"
)
def test_a_process_in_another_mount_namespace_attaches_by_descriptor(
    server: Server, client: tensord.Client, tmp_path: Path
) -> None:
    script = """
with tensord.connect() as client:
    with client.attach("here", timeout=60) as region:
        say([region.numpy().tolist(), region.attached_by])
    with client.open(tensord.TensorReference.from_dict(hear())) as tensor:
        say(tensor.numpy().tolist())
    with client.create("there", [4, 5], ttl=600) as made:
        made.numpy()[0] = 44
        made.seal()
        say(made.ref().to_dict())
        with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
            say(ring.put([6]).to_dict())
            hear()
"""
    directory = f"/dev/shm/tensord.{server.instance}"
    mount = (
        f"mount --bind {directory} {tmp_path} && mount -t tmpfs none /dev/shm && mkdir {directory} && "
        f'mount --bind {tmp_path} {directory} && exec "$@"'
    )
    with client.create("here", [1, 2], ttl=600) as region:
        region.seal()
        with Child(script, prefix=("unshare", "-m", "sh", "-c", mount, "sh")) as child:
            assert child.hear() == [[1, 2], "descriptor"]
            child.say(region.ref().to_dict())
            assert child.hear() == [1, 2]
            # Whoever sees the names opens what it made by them.
            for want in ([44, 5], [6]):
                with client.open(tensord.TensorReference.from_dict(child.hear())) as tensor:
                    assert tensor.numpy().tolist() == want
            child.say("end")
            child.finish()
        with client.attach("there") as made:
            assert made.attached_by == "name"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes under other uids")
def test_another_uid_gets_what_its_file_forbids_from_the_broker(client: tensord.Client) -> None:
    script = """
os.setgroups([hear()]); os.setgid(65534); os.setuid(65534)
with tensord.connect() as client, client.attach("theirs") as region:
    say([region.numpy().tolist(), region.attached_by])
    with region.lock_read(): say("locked")
    try: open(region.descriptor.storage.path)
    except PermissionError: say("refused")
"""
    with client.create("theirs", [3], ttl=600) as region:
        os.chmod(region.descriptor.storage.path or "", 0o600)
        with Child(script) as child:
            child.say(os.getegid())
            assert [child.hear() for _ in range(3)] == [[[3], "descriptor"], "locked", "refused"]
            child.finish()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes under other uids")
@pytest.mark.parametrize("how", ["storage='memfd'", "private=True"])
def test_another_uid_makes_and_maps_what_has_no_name(client: tensord.Client, how: str) -> None:
    script = f"""
os.setgroups([hear()]); os.setgid(65534); os.setuid(65534)
with tensord.connect() as client:
    with client.attach("theirs") as region:
        say([region.numpy().tolist(), region.attached_by])
        with region.lock_read(): pass
        with client.open(region["data"].ref()) as tensor: say(tensor.numpy().tolist())
    with client.attach("open", writable=True) as region:
        region.numpy()[0] = 8
    with client.create("ours", [1, 2], ttl=600, {how}) as made:
        made.numpy()[1] = 9
        made.seal(checksum=True)
        say([made.attached_by, client.verify(made).ok])
        with made.lock_read(): pass
    with client.ring(slots=1, slot_bytes=64, ttl=600, {how}) as ring:
        say(ring.put([6]).to_dict())
        hear()
"""
    options: dict[str, Any] = {"storage": "memfd"} if how.startswith("storage") else {"private": True}
    with (
        client.create("theirs", [3], ttl=600, **options) as theirs,
        client.create("open", [4], ttl=600, **options) as opened,
        Child(script) as child,
    ):
        theirs.seal()
        child.say(os.getegid())
        assert child.hear() == [[3], "descriptor"]
        assert child.hear() == [3]
        assert child.hear() == ["descriptor", True]
        assert opened.numpy().tolist() == [8]
        with client.attach("ours") as ours:
            assert ours.numpy().tolist() == [1, 9]
        with client.open(tensord.TensorReference.from_dict(child.hear())) as tensor:
            assert tensor.numpy().tolist() == [6]
        child.say("end")
        child.finish()


def test_the_server_may_restart_and_die_under_who_attached_by_descriptor() -> None:
    server = Server()
    server.start()
    try:
        with server.connect(retry=3600) as client, client.create("r", [1, 2], persist=True, private=True) as region:
            for number in (signal.SIGTERM, signal.SIGKILL):
                server.signal(number)
                # What is mapped stays, and what is asked for meanwhile waits.
                region.numpy()[0] += 1
                locked: list[tensord.TensorLock] = []
                waiting = threading.Thread(target=lambda locked=locked: locked.append(region.lock_write()))
                waiting.start()
                server.start()
                waiting.join()
                locked[0].release()
                with client.attach("r", writable=True) as again:
                    assert again.numpy()[0] == region.numpy()[0]
            client.delete("r")
    finally:
        server.stop()


def test_a_forked_child_asks_over_a_connection_of_its_own(client: tensord.Client) -> None:
    script = (
        FDS
        + """
with tensord.connect() as client:
    region = client.attach("r")
    parent = client._api.broker._sock.fileno()
    name = os.readlink(f"/proc/self/fd/{parent}")
    child = os.fork()
    if child == 0:
        assert not os.path.exists(f"/proc/self/fd/{parent}") or os.readlink(f"/proc/self/fd/{parent}") != name
        with client.attach("r") as own: ok = own.numpy().tolist() == [5]
        os._exit(0 if ok and client._api.broker._sock is not None else 1)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    with client.attach("r") as again: say(again.numpy().tolist())
    say(client._api.broker._sock.fileno() == parent)
"""
    )
    with client.create("r", [5], ttl=600, storage="memfd"), Child(script) as child:
        assert [child.hear() for _ in range(3)] == [0, [5], True]
        child.finish()


def test_a_process_without_a_descriptor_left_is_told_so_and_loses_none(client: tensord.Client) -> None:
    script = (
        FDS
        + """
import resource
with tensord.connect(session=False) as client:
    client.attach("r").close()
    before = fds()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # All numbers below are taken, and so the next one is too many.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    spare = []
    try:
        while True: spare.append(os.dup(0))
    except OSError: pass
    for connected in (True, False):
        if not connected: client._api.broker.forget()
        try: client.attach("r")
        except tensord.OutOfDescriptors as error: say([error.status, "ulimit -n" in str(error)])
        if not connected: break
        # The connection went with it: the next one needs a descriptor of its own.
        spare.append(os.dup(0))
    for fd in spare: os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client.attach("r").close()
    say(fds() - before)
"""
    )
    with client.create("r", [5], ttl=600, storage="memfd"), Child(script) as child:
        assert [child.hear() for _ in range(2)] == [[None, True], [None, True]]
        assert child.hear() == 0
        child.finish()


def test_threads_share_one_connection(server: Server, client: tensord.Client) -> None:
    with client.create("r", [5], ttl=600, storage="memfd"):
        client.attach("r").close()
        connection = client._api.broker._sock
        failures: list[BaseException] = []

        def attach() -> None:
            try:
                for _ in range(5):
                    with client.attach("r") as region:
                        assert region.numpy().tolist() == [5]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=attach) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert client._api.broker._sock is connection
        assert not any("memfd:" in link for link in links())


def test_a_closed_client_asks_no_broker(server: Server, client: tensord.Client) -> None:
    with client.create("r", [5], ttl=600, storage="memfd") as region:
        with server.connect(session=False) as other:
            attached = other.attach("r")
        with pytest.raises(tensord.Closed):
            attached.lock_read()
        assert attached.numpy().tolist() == [5]
        attached.close()
        del region


def test_where_the_broker_is() -> None:
    def of(url: str, **environ: str) -> str | None:
        return beside(find_endpoint(url, {}), environ)

    assert of("unix:///run/tensord/http.sock") == "/run/tensord/broker.sock"
    assert of("unix:///run/tensord/a.sock") == "/run/tensord/a.sock.broker"
    assert of("http://localhost:80") is None
    assert (
        of("unix:///run/a", TENSORD_BROKER_SOCKET="/run/b")
        == of("http://a", TENSORD_BROKER_SOCKET="/run/b")
        == "/run/b"
    )


def test_who_knows_the_server_by_tcp_asks_where_its_broker_is(client: tensord.Client) -> None:
    told = Path(beside(Endpoint("", path=client._transport.endpoint.path), {}) or "")
    broker = Broker(Transport(Endpoint("", host="localhost", port=9), 0.0), lambda: str(told))
    with client.create("r", [5], ttl=600, storage="memfd") as region:
        handed = broker.attach(region.id, writable=False, lease="consumer")
        assert os.pread(handed.fd, 8, region["data"].byte_offset) == (5).to_bytes(8, "little")
        os.close(handed.fd)
        with pytest.raises(tensord.StaleRef, match="of instance other"):
            broker.attach(region.id, writable=False, lease="consumer", instance="other")
    broker.close()


@contextlib.contextmanager
def fake_broker(path: Path, answer: Callable[[int], tuple[bytes, list[int]]]) -> Iterator[Broker]:
    """A broker that says hello, and answers each question as it is told: the client's, which asks it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while request := connection.recv(65536):
                        number = json.loads(request)["id"]
                        if json.loads(request)["op"] == "hello":
                            connection.send(json.dumps({"id": number, "ok": True, "v": 1, "instance": "a"}).encode())
                            continue
                        frame, fds = answer(number)
                        socket.send_fds(connection, [frame], fds)

        thread = threading.Thread(target=serve)
        thread.start()
        broker = Broker(Transport(Endpoint("", path=str(path.with_name("http.sock"))), 0.0), lambda: None)
        try:
            yield broker
        finally:
            broker.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("answer", "count", "error"),
    [
        ({"ok": True, "fds": ["region", "region"]}, 1, tensord.OutOfDescriptors),
        ({"ok": True, "fds": ["region"]}, 2, tensord.ServerFault),
        ({"ok": True}, 1, tensord.ServerFault),
        ({"ok": True}, 0, tensord.ServerFault),
        ({"ok": True, "fds": ["region"], "id": 999}, 1, tensord.ServerFault),
        ({"ok": False, "fds": ["region"], "problem": {"code": "region-busy", "status": 409}}, 1, tensord.RegionBusy),
        (
            {"ok": False, "problem": {"code": "too-many-requests", "status": 429}, "id": None},
            1,
            tensord.TooManyRequests,
        ),
        (b"no JSON", 3, tensord.ServerFault),
        (b"[]", 1, tensord.ServerFault),
    ],
)
def test_an_answer_that_is_none_leaves_no_descriptor(
    tmp_path: Path, answer: dict[str, object] | bytes, count: int, error: type[tensord.TensordError]
) -> None:
    with (
        open("/dev/zero", "rb") as file,
        fake_broker(
            tmp_path / "broker.sock",
            lambda number: (
                answer if isinstance(answer, bytes) else json.dumps({"id": number, **answer}).encode(),
                [file.fileno()] * count,
            ),
        ) as broker,
    ):
        for _ in range(2):
            with pytest.raises(error):
                broker.attach("reg_a", writable=False, lease="consumer")
        broker.close()
    assert "/dev/zero" not in links()


def test_an_open_region_that_the_kernel_has_made_final_says_so_and_what_to_do(
    server: Server, client: tensord.Client
) -> None:
    client.create("weights", np.arange(4.0), storage="memfd").close()
    region = client.get("weights")
    # What a seal does that is refused in a later step: F_ADD_SEALS with F_SEAL_WRITE (<linux/fcntl.h>).
    fd = client._api.broker.attach(region.id, writable=True, lease="consumer").fd
    fcntl.fcntl(fd, 1033, 8)
    os.close(fd)
    with pytest.raises(tensord.RegionSealed, match="it is open, but the kernel has made its bytes final") as refused:
        client.attach("weights", writable=True)
    assert refused.value.hint is not None
    assert "seal it again" in refused.value.hint
    # It is what the hint says: readers have it as it is, and the next seal goes on from there.
    with client.attach("weights") as attached:
        assert attached.seal().state == "sealed"
        assert attached.numpy()[3] == 3
