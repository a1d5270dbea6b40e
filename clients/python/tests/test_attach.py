"""Finding regions and mapping them: by name, by descriptor, by reference, at once or after a wait."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import DEADLINE_SECONDS, Server, wait_for

import tensord
from tensord import _api


def test_an_array_is_stored_and_attached_without_a_copy(server: Server, client: tensord.Client) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    region = client.create("weights", array, ttl=600, labels={"job": "nightly"})
    assert region.created
    assert region.writable
    assert (region.name, region.model, region.state, region.keys()) == ("weights", "default", "open", ("data",))
    assert dict(region.descriptor.labels) == {"job": "nightly"}
    assert np.array_equal(region.numpy(), array)
    assert np.shares_memory(region.numpy(), region.numpy())
    region.numpy()[0, 0] = 42
    region.seal(checksum=True)

    attached = tensord.attach("weights", timeout=DEADLINE_SECONDS)
    assert not attached.created
    assert not attached.writable
    assert attached.state == "sealed"
    assert attached.numpy().dtype == np.float32
    assert attached.numpy().flags.writeable is False
    assert attached.numpy()[0, 0] == 42
    assert np.shares_memory(np.asarray(attached), attached.numpy())
    assert client.verify(attached).ok is True
    region.close()
    attached.close()


def test_a_region_without_a_name_is_attached_by_descriptor_or_reference(client: tensord.Client) -> None:
    with client.create(None, [1, 2, 3], ttl=600) as region:
        assert region.name is None
        with client.attach(client.get_by_id(region.id)) as attached, client.open(region.ref()) as opened:
            assert attached.numpy().tolist() == opened.numpy().tolist() == [1, 2, 3]


def test_an_open_region_is_attached_as_it_is(client: tensord.Client) -> None:
    with client.create("open", np.zeros(4), ttl=600) as region, client.attach("open") as reader:
        assert reader.state == "open"
        view = reader.numpy()
        region.numpy()[2] = 7
        assert view[2] == 7
        with client.attach("open", writable=True) as writer:
            writer.numpy()[3] = 8
        assert region.numpy()[3] == view[3] == 8


def test_a_sealed_region_is_not_attached_for_writing(client: tensord.Client) -> None:
    with client.create("sealed", [1], ttl=600) as region:
        descriptor = client.get("sealed")
        region.seal()
        ref = region.ref()
        with pytest.raises(tensord.RegionSealed, match="without writable"):
            client.attach("sealed", writable=True)
        with pytest.raises(tensord.RegionSealed):
            client.attach(descriptor, writable=True)
        with pytest.raises(tensord.RegionSealed):
            client.open(ref, writable=True)
        with pytest.raises(tensord.ValidationFailed, match="strict"):
            client.attach("sealed", writable=True, strict=True)


def test_attach_waits_until_the_region_is_there_and_sealed(server: Server, client: tensord.Client) -> None:
    attached: list[Any] = []

    def attach() -> None:
        with tensord.attach("later", timeout=DEADLINE_SECONDS) as region:
            attached.append((region.state, region.numpy().tolist()))

    thread = threading.Thread(target=attach)
    thread.start()
    with client.create("later", [1, 2], ttl=600) as region:
        region.numpy()[1] = 3
        assert thread.is_alive()
        region.seal()
        thread.join(DEADLINE_SECONDS)
    assert attached == [("sealed", [1, 3])]


def test_attach_ends_its_wait_with_what_is_wrong(client: tensord.Client) -> None:
    with pytest.raises(tensord.RegionNotFound):
        client.attach("absent")
    with pytest.raises(tensord.RegionNotFound):
        client.attach("absent", timeout=0.1)
    with pytest.raises(tensord.ModelNotFound):
        client.attach("absent", model="absent", timeout=0.1)
    wait_ends = pytest.raises(tensord.RegionNotSealed, match="timeout=0 maps it as it is")
    with client.create("unsealed", [1], ttl=600), wait_ends:
        client.attach("unsealed", timeout=0.1)
    for timeout in (-1, float("nan")):
        with pytest.raises(tensord.ValidationFailed):
            client.attach("absent", timeout=timeout)


def test_a_writer_waits_only_until_the_region_is_there(server: Server, client: tensord.Client) -> None:
    done: list[str] = []

    def attach() -> None:
        with server.connect() as other, other.attach("later", writable=True, timeout=DEADLINE_SECONDS) as region:
            done.append(region.state)

    thread = threading.Thread(target=attach)
    thread.start()
    with client.create("later", [1], ttl=600):
        thread.join(DEADLINE_SECONDS)
    assert done == ["open"]
    with pytest.raises(tensord.RegionNotFound):
        client.attach("absent", writable=True, timeout=0.1)


def test_a_descriptor_in_hand_is_attached_without_a_request(server: Server) -> None:
    with server.connect(session=False) as client, client.create("known", [1, 2], ttl=600):
        descriptor = client.get("known")
        before = client.stats().http.requests
        client.attach(descriptor).close()
        assert client.stats().http.requests == before + 1


def test_an_item_of_a_list_is_attached_with_its_tensors(client: tensord.Client) -> None:
    with client.create("listed", {"a": [1, 2], "b": [3.5]}, ttl=600):
        (item,) = client.list(name="listed")
        assert (item.tensor_count, item.tensors) == (2, None)
        with client.attach(item) as attached:
            assert attached.keys() == ("a", "b")
            assert attached["b"].numpy().tolist() == [3.5]
            assert attached.descriptor.tensors is not None


def test_a_descriptor_of_a_deleted_region_is_asked_for_again(client: tensord.Client) -> None:
    with client.create("gone", [1], ttl=600) as region:
        descriptor = client.get("gone")
        client.delete(region)
        with pytest.raises(tensord.RegionDraining):
            client.attach(descriptor)
    wait_for(lambda: not any(client.list()), "it is gone")
    with pytest.raises(tensord.RegionNotFound):
        client.attach(descriptor)


def test_a_name_replaced_between_answer_and_open_is_found_again(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = client.create("name", [1], ttl=600)
    old.seal()
    new = client.create("name", [2], ttl=600, if_exists="replace")
    by_name = _api.Api.region_by_name

    def answer_then_replace(api: _api.Api, *args: Any, **options: Any) -> tensord.RegionDescriptor:
        answer = by_name(api, *args, **options)
        if not old.closed:
            old.close()
            new.seal()
        return answer

    monkeypatch.setattr(_api.Api, "region_by_name", answer_then_replace)
    with client.attach("name", timeout=60) as attached:
        assert attached.id == new.id
        assert attached.numpy().tolist() == [2]
    new.close()


def test_a_reference_maps_one_tensor_without_a_server(client: tensord.Client) -> None:
    data: dict[str, npt.NDArray[Any]] = {
        "a": np.arange(5000, dtype=np.float32),
        "b": np.arange(7, dtype=np.int16),
        "c": np.array(3.0),
        "d": np.zeros((0, 2)),
    }
    with client.create("refs", data, ttl=600) as region, tensord.connect("unix:///nobody/listens.sock") as offline:
        for name, array in data.items():
            ref = tensord.TensorReference.from_json(region[name].ref().to_json())
            assert ref.instance == os.environ["TENSORD_INSTANCE"]
            assert (ref.region, ref.generation) == (region.id, 0)
            with offline.open(ref) as tensor:
                assert (tensor.dtype, tensor.shape) == (region[name].dtype, array.shape)
                assert np.array_equal(tensor.numpy(), array)
                assert tensor.numpy().flags.writeable is False
                assert tensor.ref() == ref
                assert not tensor.writable
            assert tensor.closed
            with pytest.raises(tensord.Closed):
                tensor.numpy()
        with offline.open(region["b"].ref(), writable=True) as tensor:
            tensor.numpy()[3] = 99
        assert region["b"].numpy()[3] == 99


def test_a_reference_to_what_is_gone_is_stale(server: Server, client: tensord.Client) -> None:
    region = client.create("gone", [1], ttl=600)
    ref = region.ref()
    client.delete(region)
    with pytest.raises(tensord.StaleRef):
        client.open(ref)
    region.close()
    wait_for(lambda: server.region_names() == [], "the file is gone")
    with pytest.raises(tensord.StaleRef, match="No such file"):
        client.open(ref)


def test_one_call_forms_create_and_check(server: Server) -> None:
    array = np.arange(6.0).reshape(2, 3)
    with tensord.create_shared_tensor("one", array, ttl=600) as region:
        region.seal()
    with tensord.attach_shared_tensor("one") as attached:
        assert np.array_equal(attached.numpy(), array)
    with tensord.attach_shared_tensor("one", (2, 3), np.float64, timeout=60) as attached:
        assert attached.numpy().shape == (2, 3)
    for shape, dtype in (((3, 2), None), (None, "F32"), (6, float)):
        with pytest.raises(tensord.ValidationFailed, match=r"its tensor is F64 \[2, 3\]"):
            tensord.attach_shared_tensor("one", shape, dtype)
    refused = pytest.raises(tensord.ValidationFailed, match="as one tensor")
    with tensord.connect() as client, client.create("two", {"a": [1], "b": [2]}, ttl=600), refused:
        tensord.attach_shared_tensor("two")
