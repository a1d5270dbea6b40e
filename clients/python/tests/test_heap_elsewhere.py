"""A process that shares no memory with its server: what it makes is in heap storage without being asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from harness import Child, Server

import tensord

# An empty directory in the place of the server's: with a server that is known by TCP alone it is another host.
ELSEWHERE = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh")
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount, and unshare(1) is needed"
)


@pytest.fixture(params=["", "memfd,heap"])
def far_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(TENSORD_PORT="0", TENSORD_STORAGES=request.param)
    server.start()
    yield server
    server.stop()


@needs_namespaces
def test_what_it_makes_is_made_in_heap_storage_and_read_everywhere(far_server: Server) -> None:
    script = """
import logging
records = []
class Kept(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
logging.getLogger("tensord").addHandler(Kept())
with tensord.connect() as client:
    for name in ("first", "second"):
        with client.create(name, [1, 2], linger=600) as region:
            region.numpy()[1] = 7
            region.seal(checksum=True)
            say([region.attached_by, region.descriptor.storage.kind, client.verify(region).ok])
    with client.get_or_create("built", lambda: [3]) as built:
        say([built.created, built.attached_by, built.numpy().tolist()])
    with client.attach("first") as again:
        say(again.numpy().tolist())
    say([message for message in records if "shares no memory" in message])
    say(sorted(region.name for region in client.list()))
    for options in ({"storage": "memfd"}, {"private": True}):
        try: client.create("asked", [1], ttl=600, **options)
        except (tensord.WrongNamespace, tensord.StorageUnavailable) as error: say(type(error).__name__)
    try: client.ring(slots=1, slot_bytes=64, ttl=600)
    except tensord.StorageUnavailable as error: say(error.detail)
    hear()
"""
    with Child(
        script, environ={"TENSORD_URL": far_server.tcp_url, "TENSORD_BROKER_SOCKET": ""}, prefix=ELSEWHERE
    ) as child:
        for _ in range(2):
            assert child.hear() == ["copy", "heap", True]
        assert child.hear() == [True, "copy", [3]]
        assert child.hear() == [1, 7]
        (message,) = child.hear()
        assert far_server.tcp_url in message
        assert child.hear() == ["built", "first", "second"]
        assert child.hear() == "WrongNamespace"
        assert child.hear() in ("WrongNamespace", "StorageUnavailable")
        assert "Cannot make" in child.hear()
        with far_server.connect(session=False) as client, client.attach("second") as near:
            assert near.numpy().tolist() == [1, 7]
        child.say("end")
        child.finish()


@needs_namespaces
def test_where_the_server_has_no_heap_the_error_says_what_is_not_here() -> None:
    server = Server(TENSORD_PORT="0", TENSORD_STORAGES="shm,memfd")
    server.start()
    script = """
with tensord.connect() as client:
    try: client.create("made", [1], ttl=600)
    except tensord.WrongNamespace as error: say(error.detail)
    say(len(list(client.list())))
"""
    try:
        with Child(script, environ={"TENSORD_URL": server.tcp_url}, prefix=ELSEWHERE) as child:
            assert "the server's is" in child.hear()
            assert child.hear() == 0
            child.finish()
    finally:
        server.stop()


def test_where_there_is_shared_memory_nothing_is_made_twice(client: tensord.Client) -> None:
    with client.create("near", [1], ttl=600) as region:
        assert (region.attached_by, region.descriptor.storage.kind) == ("name", "shm")
    assert not client._api.shares_no_memory
