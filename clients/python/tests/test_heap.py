"""Regions that no process maps: local until the seal uploads them, downloaded once a process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest
from harness import Child, Server, wait_for
from test_descriptors import links

import tensord
from tensord._api import Api

WEIGHTS = np.arange(600_000, dtype=np.float32).reshape(600, 1000)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the regions that are downloaded in this process."""
    seen: list[str] = []
    download = Api.download

    def count(api: Api, region_id: str, *rest: object) -> None:
        seen.append(region_id)
        download(api, region_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Api, "download", count)
    return seen


def test_a_heap_region_is_local_until_its_seal_and_a_download_after_it(server: Server, client: tensord.Client) -> None:
    made = client.create("weights", {"w": np.zeros_like(WEIGHTS), "b": np.ones(3)}, storage="heap")
    array = made["w"].numpy()
    array[...] = WEIGHTS
    assert (made.attached_by, made.writable, made.descriptor.storage.kind) == ("copy", True, "heap")
    with Child(
        """
with tensord.connect(session=False) as client:
    try:
        client.attach("weights")
    except tensord.StorageUnavailable as error:
        say([error.detail, error.hint])
    say("waits")
    with client.attach("weights", timeout=120) as region:
        say([float(region["w"].numpy().sum()), region["b"].numpy().tolist(), region.attached_by])
        hear()
"""
    ) as reader:
        detail, hint = reader.hear()
        assert "while it is open" in detail
        assert "timeout=" in hint
        assert reader.hear() == "waits"
        made.seal(checksum=True)
        assert reader.hear() == [float(WEIGHTS.sum()), [1.0, 1.0, 1.0], "copy"]
        # Nobody maps anything, and nobody says so.
        wait_for(lambda: not client.get("weights").in_use, "the server has sent all of it")
        told = client.get("weights")
        assert (told.in_use, told.holders, told.unknown_holders) == (False, (), False)
        reader.say(None)
        reader.finish()
    assert client.verify("weights").ok
    assert not made.writable
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, WEIGHTS)
    with pytest.raises(tensord.RegionSealed):
        client.attach("weights", writable=True)
    made.close()


def test_one_download_serves_all_that_attach_it_in_a_process(
    server: Server, client: tensord.Client, downloads: list[str]
) -> None:
    with Child(
        """
with tensord.connect() as client:
    made = client.create("weights", np.arange(1000.0), storage="heap", persist=True)
    made.seal()
    say(made.ref().to_json())
"""
    ) as maker:
        ref = tensord.TensorReference.from_json(maker.hear())
        maker.finish()
    first, second = client.attach("weights"), client.attach("weights", strict=True)
    opened = client.open(ref)
    with client.attach(["weights"]) as group:
        assert group[0].numpy()[7] == 7
    assert first.numpy()[999] == second.numpy()[999] == opened.numpy()[999] == 999
    assert len(downloads) == 1
    # A write stays its view's alone, as in any other storage.
    first.numpy(private=True)[0] = 5
    assert second.numpy()[0] == opened.numpy()[0] == 0
    array = second.numpy()
    for each in (first, second, opened):
        each.close()
    # An array keeps the memory, and is enough to share it.
    with client.attach("weights") as third:
        assert third.numpy()[1] == array[1]
    assert len(downloads) == 1
    del array, each, first, second, opened, third, group
    gc.collect()
    assert not [name for name in links() if "tensord-copy" in name]
    client.attach("weights").close()
    assert len(downloads) == 2


def test_what_its_maker_has_sealed_needs_no_download(
    server: Server, client: tensord.Client, downloads: list[str]
) -> None:
    with client.create("weights", WEIGHTS, storage="heap") as made:
        made.seal()
        with client.attach("weights") as attached:
            np.testing.assert_array_equal(attached.numpy(), WEIGHTS)
    assert downloads == []


def test_a_seal_that_is_refused_leaves_it_writable_and_the_next_one_uploads_what_is_there_then(
    server: Server, client: tensord.Client
) -> None:
    with client.create("weights", np.zeros(1000), storage="heap") as made:
        with pytest.raises(tensord.RevisionMismatch):
            made.seal(if_match=made.descriptor.revision + 7)
        assert made.writable
        made.numpy()[...] = 3
        with Child(
            """
client = tensord.connect()
say("there")
say(client.attach("weights", timeout=120).numpy().sum())
""",
        ) as reader:
            assert reader.hear() == "there"
            made.seal()
            assert reader.hear() == 3000


def test_a_forked_child_that_maps_it_for_writing_is_a_writer(server: Server, client: tensord.Client) -> None:
    with client.create("weights", np.zeros(8), storage="heap") as made:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        try:
            with pytest.raises(tensord.RegionHasWriters, match="forked child"):
                made.seal()
        finally:
            os.close(writer)
            os.close(reader)
            os.waitpid(pid, 0)
        made.seal()


def test_it_is_what_numpy_and_torch_know_and_a_group_seals(server: Server, client: tensord.Client) -> None:
    torch = pytest.importorskip("torch")
    parts = [client.create(f"part-{index}", {"w": WEIGHTS}, storage="heap") for index in range(2)]
    view = parts[0]["w"].torch()
    view[0, 0] = 8
    client.seal(parts)
    assert view[0, 0] == 8
    assert parts[0]["w"].numpy()[0, 0] == 8
    with client.attach(["part-0", "part-1"]) as group:
        assert torch.from_dlpack(group[0]["w"])[0, 0] == 8
        assert group[1]["w"].numpy()[0, 1] == 1
    for part in parts:
        part.close()


def test_there_is_no_ring_of_it(server: Server, client: tensord.Client) -> None:
    with pytest.raises(tensord.StorageUnavailable, match="a ring is shared while it is open"):
        client.ring(storage="heap")
    assert not list(client.list())


@pytest.fixture(scope="module")
def bare() -> Iterator[Server]:
    """A server that shares no memory: what a host without shared memory has."""
    server = Server(TENSORD_STORAGES="heap")
    server.start()
    yield server
    server.stop()


def test_the_same_code_runs_where_the_server_shares_no_memory(bare: Server) -> None:
    environ = {**bare.environ, "TENSORD_URL": bare.url}
    script = """
with tensord.connect() as client:
    region = client.get_or_create("weights", lambda: {"w": np.full(1000, 4.0)}, linger=60)
    say([region.created, region.attached_by, float(region["w"].numpy().sum())])
    hear()
"""
    with Child(script, environ=environ) as first, Child(script, environ=environ) as second:
        answers = sorted([first.hear(), second.hear()])
        assert answers == [[False, "copy", 4000.0], [True, "copy", 4000.0]]
        for each in (first, second):
            each.say(None)
            each.finish()
    with bare.connect() as client:
        with pytest.raises(tensord.StorageUnavailable, match="ring"):
            client.ring(name="ring")
        with pytest.raises(tensord.RegionNotFound):
            client.get("ring")
        with pytest.raises(tensord.StorageUnavailable, match="this server has heap"):
            client.create("other", np.zeros(3), storage="shm")
        client.delete("weights")
        wait_for(lambda: not list(client.list()), "the region is gone")
