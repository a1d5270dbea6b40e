"""Operations: copies that the server makes, followed, waited for, cancelled and listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer

import tensord

RUNNING = {
    "id": "op_" + "a" * 26,
    "kind": "copy",
    "state": "running",
    "model": "default",
    "created_by": None,
    "key": None,
    "source": "reg_" + "a" * 26,
    "done_bytes": 3,
    "total_bytes": 10,
    "region": None,
    "problem": None,
    "started_at": "2026-11-29T12:00:00.000Z",
    "ended_at": None,
}


def _make(client: tensord.Client, name: str | None = None) -> tensord.RegionDescriptor:
    with client.create(name, {"w": np.arange(1000, dtype=np.float32), "b": np.ones(3)}, ttl=600) as region:
        return region.seal(checksum=True)


@pytest.mark.parametrize("storage", ["shm", "memfd", "heap"])
def test_a_copy_has_the_tensors_of_its_source_in_another_storage(client: tensord.Client, storage: str) -> None:
    source = _make(client)
    told: list[tuple[int, int]] = []
    operation = client.copy(source, name="copy", ttl=600, storage=storage)
    copy = operation.wait(180, progress=lambda done, total: told.append((done, total)))
    assert (copy.state, copy.storage.kind, copy.name) == ("sealed", storage, "copy")
    assert copy.checksum == source.checksum
    assert told[-1:] in ([], [(operation.total_bytes, operation.total_bytes)])
    assert (operation.state, operation.descriptor.region, operation.error) == ("succeeded", copy.id, None)
    with client.attach("copy") as region:
        assert np.array_equal(region["w"].numpy(), np.arange(1000, dtype=np.float32))
        assert sorted(region.keys()) == ["b", "w"]


def test_a_copy_without_an_owner_is_its_session_s(client: tensord.Client) -> None:
    _make(client, "weights")
    copy = client.copy("weights").wait(180)
    assert copy.owner.kind == "session"
    assert client.session is not None
    client.session.end()
    with pytest.raises(tensord.RegionNotFound):
        client.get_by_id(copy.id)


def test_one_copy_is_shared_by_who_asks_for_it_under_a_name(client: tensord.Client) -> None:
    source = _make(client)
    copies = [client.copy(source, name="shared", ttl=600, if_exists="attach") for _ in range(4)]
    assert len({operation.wait(180).id for operation in copies}) == 1


def test_a_copy_that_fails_raises_what_the_server_says(client: tensord.Client) -> None:
    source = _make(client, "weights")
    operation = client.copy(source, name="weights", ttl=600)
    with pytest.raises(tensord.NameTaken, match="weights"):
        operation.wait(180)
    assert operation.state == "failed"
    assert isinstance(operation.error, tensord.NameTaken)
    with pytest.raises(tensord.RegionNotSealed), client.create(None, [1], ttl=600) as region:
        client.copy(region, ttl=600)
    with pytest.raises(tensord.StorageUnavailable):
        client.copy(source, ttl=600, device="GPU-00000000-0000-4000-8000-00000000ffff")


def test_operations_are_listed_found_and_cancelled(client: tensord.Client) -> None:
    source = _make(client)
    operation = client.copy(source, ttl=600)
    copy = operation.wait(180)
    # The server has told others of theirs.
    assert [each.id for each in client.operations(state="succeeded")][-1] == operation.id
    assert operation.id not in [each.id for each in client.operations(model="absent")]
    assert list(client.operations(state="running")) == []
    assert operation.cancel().state == "succeeded"
    assert client.operation(operation.id).descriptor == operation.descriptor
    assert client.get_by_id(copy.id).state == "sealed"
    with pytest.raises(tensord.OperationNotFound):
        client.operation("op_" + "a" * 26)


def test_a_wait_ends_in_time_tells_its_progress_and_leaves_the_copy_alone(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with (
        FakeServer(tmp_path / "s", lambda _: (200, RUNNING)),
        tensord.connect(f"unix://{tmp_path}/s") as client,
    ):
        operation = client.operation(RUNNING["id"])
        with pytest.raises(tensord.DeadlineExceeded, match="3 of 10 bytes"):
            operation.wait(0.2, progress=lambda done, total: told.append((done, total)))
        assert (3, 10) in told
        with pytest.raises(tensord.DeadlineExceeded):
            operation.wait(0)
        assert operation.state == "running"
