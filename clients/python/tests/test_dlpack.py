"""DLPack: the same memory in other libraries, for as long as they hold it, and never a way to write what is sealed."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from harness import TORCH, Child, wait_for

import tensord
from tensord._mapping.lease import is_leased

TORCH_TYPES = [
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float16",
    "float32",
    "float64",
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "complex64",
]


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is an extra")


@pytest.mark.parametrize("dtype", TORCH_TYPES)
def test_torch_gets_every_type_without_a_copy(client: tensord.Client, torch: Any, dtype: str) -> None:
    source = torch.arange(6, dtype=torch.float32).to(getattr(torch, dtype)).reshape(2, 3)
    with client.create("t", source, ttl=600) as region:
        tensor = torch.from_dlpack(region["data"])
        assert tensor.dtype == source.dtype
        assert tensor.shape == (2, 3)
        assert tensor.is_contiguous()
        assert tensor.data_ptr() == region.bytes().ctypes.data
        assert torch.equal(tensor.view(torch.uint8), source.view(torch.uint8))
        region.bytes()[:] = 0
        assert not tensor.view(torch.uint8).any()


def test_numpy_gets_its_own_types_read_only_where_they_are(client: tensord.Client) -> None:
    with client.create("t", np.arange(6, dtype=np.int32).reshape(2, 3), ttl=600) as region:
        array = np.from_dlpack(region)
        assert array.dtype == np.int32
        assert np.shares_memory(array, region.numpy())
        assert array.flags.writeable
        region.seal()
        with client.attach("t") as reader:
            read = np.from_dlpack(reader)
            assert read.tolist() == [[0, 1, 2], [3, 4, 5]]
            assert not read.flags.writeable
            assert np.from_dlpack(reader, copy=True).flags.writeable


def test_torch_writes_into_a_sealed_region_stay_private(client: tensord.Client, torch: Any) -> None:
    with client.create("t", np.ones(5000, np.float32), ttl=600) as region:
        region.seal()
        with client.attach("t") as first, client.attach("t") as second:
            tensor = torch.from_dlpack(first)
            tensor.mul_(3)
            assert tensor.sum() == 15_000
            assert second.numpy().sum() == region.numpy().sum() == 5000


def test_a_consumer_from_before_version_1_gets_a_capsule_too(client: tensord.Client, torch: Any) -> None:
    with client.create("t", torch.ones(4, dtype=torch.bfloat16), ttl=600) as region:
        region.seal()
        with client.attach("t") as reader:
            capsule = reader.__dlpack__()
            assert 'capsule object "dltensor"' in repr(capsule)
            tensor = torch.utils.dlpack.from_dlpack(capsule)
            assert tensor.tolist() == [1, 1, 1, 1]
            tensor.zero_()
            assert region.torch().sum() == 4


def test_scalars_and_empty_tensors_go_out(client: tensord.Client, torch: Any) -> None:
    with client.create("t", {"s": np.float32(2.5), "e": torch.zeros(0, 3, dtype=torch.bfloat16)}, ttl=600) as region:
        assert torch.from_dlpack(region["s"]).item() == 2.5
        empty = torch.from_dlpack(region["e"])
        assert (empty.shape, empty.dtype) == ((0, 3), torch.bfloat16)


def test_what_cannot_go_out_is_refused(client: tensord.Client, torch: Any) -> None:
    with client.create("t", tensors={"f4": ("F4", (2,)), "x": ("F32", (2,))}, ttl=600) as region:
        assert region["x"].__dlpack_device__() == (1, 0)
        with pytest.raises(tensord.FeatureUnavailable, match="F4"):
            torch.from_dlpack(region["f4"])
        with pytest.raises(TypeError, match="has 2 tensors"):
            region.__dlpack__()
        with pytest.raises((BufferError, ValueError)):
            region["x"].__dlpack__(dl_device=(2, 0))
        with client.attach("t", strict=True) as strict, pytest.raises(tensord.FeatureUnavailable, match="strict=True"):
            torch.from_dlpack(strict["x"])
    with pytest.raises(tensord.Closed):
        torch.from_dlpack(region["x"])


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_that_nobody_consumes_leaks_nothing(client: tensord.Client, version: tuple[int, int] | None) -> None:
    region = client.create("t", np.zeros(10), ttl=600)
    path = region.descriptor.storage.path
    capsule = region.__dlpack__(max_version=version)
    region.close()
    gc.collect()
    assert is_leased(path)
    del capsule
    assert not is_leased(path)


def test_a_refused_capsule_shows_the_consumers_error_and_leaks_nothing(client: tensord.Client, torch: Any) -> None:
    with client.create("t", torch.zeros(4, dtype=torch.bfloat16), ttl=600) as region:
        path = region.descriptor.storage.path
        with pytest.raises(RuntimeError, match="Unsupported dtype"):
            np.from_dlpack(region)
    gc.collect()
    assert not is_leased(path)


def test_a_consumer_keeps_the_region_mapped(client: tensord.Client, torch: Any) -> None:
    region = client.create("t", np.arange(10), ttl=600)
    path = region.descriptor.storage.path
    tensor = torch.from_dlpack(region)[5:]
    region.close()
    del region
    gc.collect()
    assert is_leased(path)
    assert tensor.tolist() == [5, 6, 7, 8, 9]
    del tensor
    assert not is_leased(path)


def test_a_slot_stays_locked_while_a_consumer_has_it(client: tensord.Client, torch: Any) -> None:
    with client.ring(slots=1, slot_bytes=64, ttl=600) as ring:
        tensor = torch.from_dlpack(client.open(ring.put([1, 2])))
        gc.collect()
        with pytest.raises(tensord.DeadlineExceeded):
            ring.acquire(timeout=0)
        assert tensor.tolist() == [1, 2]
        del tensor
        ring.acquire(timeout=0).close()


def test_an_interpreter_ends_in_order_with_consumers_alive(client: tensord.Client, torch: Any) -> None:
    script = """
import torch
region = tensord.attach("t")
kept, capsule, array = torch.from_dlpack(region), region.__dlpack__(), np.from_dlpack(region)
torch.kept = torch.from_dlpack(region)
sys.modules["kept"] = kept
say(region.descriptor.storage.path)
"""
    with client.create("t", np.arange(10), ttl=600), Child(script, imported=TORCH) as child:
        path = child.hear()
        child.finish()
        assert child.errors() == ""
    wait_for(lambda: not is_leased(path), "the lease is gone")
