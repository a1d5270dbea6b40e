"""torch over shared memory: no copy, the same lifetime, and no crash where torch insists on writing."""

from __future__ import annotations

import gc
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Server

import tensord
from tensord._mapping.mapping import Mapping
from tensord._wire import tensors as wire

torch = pytest.importorskip("torch", reason="torch is an extra")


def test_a_tensor_shares_the_memory(client: tensord.Client) -> None:
    with client.create("t", np.arange(6, dtype=np.float32).reshape(2, 3), ttl=600) as region:
        tensor = region.torch()
        assert tensor.dtype == torch.float32
        assert tensor.shape == (2, 3)
        assert tensor.is_contiguous()
        assert tensor.data_ptr() == region.numpy().ctypes.data
        tensor[0, 0] = 9
        assert region.numpy()[0, 0] == 9


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float16", "bool", "uint16", "uint64", "complex64"],
)
def test_every_type_comes_back_equal(client: tensord.Client, dtype: str) -> None:
    source = torch.arange(12, dtype=torch.float32).reshape(3, 4).to(getattr(torch, dtype))
    with client.create("t", source, ttl=600) as region:
        region.seal()
        with client.attach("t") as attached:
            tensor = attached.torch()
            assert tensor.dtype == source.dtype
            assert torch.equal(tensor.view(torch.uint8), source.view(torch.uint8))


def test_an_in_place_operation_on_a_read_only_attachment_stays_private(client: tensord.Client) -> None:
    with client.create("t", torch.ones(5000), ttl=600) as region:
        region.seal()
        with client.attach("t") as first, client.attach("t") as second, warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = first.torch()
            tensor.mul_(3)
            assert tensor.sum() == 15_000
            assert first.numpy()[4999] == 3
            assert second.torch().sum() == 5000
            assert region.torch().sum() == 5000
        stored = np.frombuffer(Path(region.descriptor.storage.path).read_bytes()[4096:], np.float32)
        assert stored.sum() == 5000


def test_from_numpy_may_write_to_a_private_array_and_is_warned_of_any_other(client: tensord.Client) -> None:
    with client.create("t", torch.ones(5000), ttl=600) as region:
        region.seal()
        with client.attach("t") as attached, warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = torch.from_numpy(attached.numpy(private=True))
            assert tensor.mul_(3).sum() == 15_000
            assert region.numpy().sum() == 5000
            # What it would do with this one is a segmentation fault; reading it is not. torch says so once a process.
            array = attached.numpy()
            warnings.simplefilter("ignore")
            assert torch.from_numpy(array).to(torch.float64).sum() == 15_000


def test_a_tensor_outlives_its_region(client: tensord.Client) -> None:
    tensor = client.create("t", torch.arange(100), ttl=600).torch()[5:10]
    assert client.get("t").has_writers is True
    assert tensor.tolist() == [5, 6, 7, 8, 9]
    del tensor
    assert client.get("t").has_writers is False


def test_a_tensor_of_the_writer_is_private_after_the_seal(client: tensord.Client) -> None:
    with client.create("t", torch.zeros(10), ttl=600) as region:
        tensor = region.torch()
        tensor += 1
        region.seal()
        assert tensor.tolist() == [1] * 10
        tensor += 1
        with client.attach("t") as attached:
            assert attached.torch().tolist() == [1] * 10


def test_scalars_and_empty_tensors_keep_their_shape(client: tensord.Client) -> None:
    with client.create("t", {"s": torch.tensor(2.5), "e": torch.zeros(0, 3, dtype=torch.bfloat16)}, ttl=600) as region:
        assert region["s"].torch().shape == ()
        assert region["s"].torch().item() == 2.5
        assert region["e"].torch().shape == (0, 3)
        assert region["e"].torch().dtype == torch.bfloat16


def test_a_state_dict_is_loaded_without_a_copy(client: tensord.Client) -> None:
    def build() -> Any:
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)).to(
            torch.bfloat16
        )

    module = build()
    with client.create("model", module.state_dict(), ttl=600) as region:
        region.seal()
    with client.attach("model", timeout=180) as attached:
        state = attached.state_dict()
        with torch.device("meta"):
            loaded = build()
        result = loaded.load_state_dict(state, strict=True, assign=True)
        assert (result.missing_keys, result.unexpected_keys) == ([], [])
        for name, parameter in loaded.state_dict().items():
            assert parameter.data_ptr() == attached[name].bytes().ctypes.data
    x = torch.randn(2, 16, dtype=torch.bfloat16)
    assert torch.equal(loaded(x), module(x))


def test_a_state_dict_of_a_mapped_file_is_over_the_files_own_pages(server: Server, client: tensord.Client) -> None:
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors is a test extra").save_file
    path = server.models / "mapped.safetensors"
    module = torch.nn.Linear(16, 8)
    save_file(module.state_dict(), path)
    before = path.read_bytes()
    with client.load_model(path, mode="map") as weights:
        loaded = torch.nn.Linear(16, 8, device="meta")
        loaded.load_state_dict(weights.state_dict(), assign=True)
        for name, parameter in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], parameter)
        assert loaded.weight.data_ptr() == weights["weight"].numpy().ctypes.data
        with torch.no_grad():
            loaded.weight.add_(1)
        # What is written stays this process's own.
        assert path.read_bytes() == before


def test_tensors_of_a_state_dict_have_storages_of_their_own_and_each_keeps_the_pages(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"layer.{index}" for index in range(40)]
    arrays = {name: np.full((index + 1, 3), index, np.float32) for index, name in enumerate(names)}
    arrays["none"] = np.zeros((0, 3), np.float32)
    with client.create("many", arrays, ttl=600) as region:
        region.seal()
    calls: list[int] = []
    will_write = Mapping.will_write

    def count(mapping: Mapping, root: Any, address: int, length: int) -> None:
        calls.append(length)
        will_write(mapping, root, address, length)

    monkeypatch.setattr(Mapping, "will_write", count)
    with client.attach("many") as region:
        state = region.state_dict()
        path = region.descriptor.storage.path
    # For all of them at once.
    assert len(calls) == 1
    assert list(state) == [*arrays]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    assert len(storages) == len(arrays)
    last = state[names[-1]]
    assert storages[last.untyped_storage().data_ptr()] == last.nbytes
    assert state["none"].shape == (0, 3)
    # Private to this process.
    state[names[0]].fill_(9)
    del state
    gc.collect()
    assert torch.equal(last, torch.full((40, 3), 39.0))
    assert path in Path("/proc/self/maps").read_text()
    del last
    gc.collect()
    assert path not in Path("/proc/self/maps").read_text()
    with client.attach("many") as region:
        assert region[names[0]].numpy().tolist() == [[0, 0, 0]]


def test_a_state_dict_is_what_each_tensor_is_alone_and_makes_no_record_of_any(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {
        "f8": torch.arange(6, dtype=torch.float32).reshape(1, 3, 1, 2).to(torch.float8_e4m3fn),
        "bf16": torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4),
        "deep": torch.ones(*[1] * 62, 2, 3),
        "deep bf16": torch.ones(*[1] * 62, 2, 3, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "number": torch.tensor(7, dtype=torch.int64),
        "flag": torch.tensor([True, False]),
        "u16": torch.arange(5).to(torch.uint16),
        "none": torch.zeros(0, 3),
    }
    with client.create("t", source, ttl=600) as region:
        region.seal()
    with client.attach("t") as attached:
        alone = {name: attached[name].torch() for name in attached}
        # A thread's default device is of what is made anew.
        with monkeypatch.context() as patched, torch.device("meta"):
            patched.setattr(wire, "_read_info", None)
            state = attached.state_dict()
    assert list(state) == list(alone)
    for name, tensor in state.items():
        one = alone[name]
        assert (tensor.dtype, tensor.shape, tensor.stride()) == (one.dtype, one.shape, one.stride())
        assert (tensor.dtype, tensor.shape, tensor.stride()) == (
            source[name].dtype,
            source[name].shape,
            source[name].stride(),
        )
        assert tensor.device.type == "cpu"
        assert (tensor.storage_offset(), tensor.untyped_storage().nbytes()) == (0, tensor.nbytes)
        assert not tensor._is_view()
        # What is 0-dimensional has no bytes to be seen as.
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), source[name].reshape(-1).view(torch.uint8))
        saved = io.BytesIO()
        torch.save(tensor, saved)
        # Nobody else's bytes.
        assert len(saved.getvalue()) < 4096


def test_a_state_dict_of_a_file_that_aligns_nothing_is_over_its_bytes(server: Server, client: tensord.Client) -> None:
    path = server.models / "unaligned.safetensors"
    tensors = {
        "a": np.arange(3, dtype=np.uint8),
        "b": np.arange(4, dtype=np.float32),
        "c": np.arange(4, dtype=np.uint16),
    }
    header, begin = {}, 0
    for name, (array, dtype) in zip(tensors, zip(tensors.values(), ("U8", "F32", "BF16"), strict=True), strict=True):
        offsets = [begin, begin + array.nbytes]
        header[name] = {"dtype": dtype, "shape": [array.size], "data_offsets": offsets}
        begin += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))
    with client.load_model(path, mode="map") as region:
        assert any(region[name].byte_offset % 4 for name in ("b", "c"))
        state = region.state_dict()
        assert state["a"].tolist() == [0, 1, 2]
        assert state["b"].tolist() == [0, 1, 2, 3]
        assert state["c"].view(torch.int16).tolist() == [0, 1, 2, 3]
        assert state["b"].data_ptr() == region["b"].bytes().ctypes.data


def test_a_reference_opens_as_torch(client: tensord.Client) -> None:
    with client.create("t", {"pad": torch.zeros(3), "x": torch.arange(5, dtype=torch.bfloat16)}, ttl=600) as region:
        with client.open(region["x"].ref()) as tensor:
            assert tensor.torch().tolist() == [0, 1, 2, 3, 4]


def test_tied_weights_are_one_memory_and_come_back_tied(client: tensord.Client) -> None:
    class Tied(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(1000, 64, dtype=torch.bfloat16)
            self.head = torch.nn.Linear(64, 1000, bias=False, dtype=torch.bfloat16)
            self.head.weight = self.embedding.weight
            self.register_buffer("first", self.embedding.weight.detach()[0])
            # Neither as torch lays it out nor as a region does.
            self.turned = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
            self.also = self.turned

    module = Tied()
    once = module.embedding.weight.nbytes + module.turned.nbytes
    with client.create("tied", module.state_dict(), ttl=600) as region:
        region.seal()
        assert region.descriptor.storage.byte_size - 4096 == once
    with client.attach("tied") as attached:
        state = attached.state_dict()
        assert list(state) == list(module.state_dict())
        for name, value in module.state_dict().items():
            assert torch.equal(state[name], value), name
        storages = [state[name].untyped_storage() for name in ("embedding.weight", "head.weight", "first")]
        # One storage, as long as the tensor that has the bytes: who saves or pickles them does it once.
        assert len({storage._cdata for storage in storages}) == 1
        assert storages[0].nbytes() == module.embedding.weight.nbytes
        assert state["first"].storage_offset() == 0
        assert state["turned"].data_ptr() == state["also"].data_ptr()
        loaded = Tied()
        loaded.load_state_dict(state, assign=True)
        assert loaded.head.weight.data_ptr() == loaded.embedding.weight.data_ptr()
        with torch.no_grad():
            loaded.embedding.weight[0, 0] = 5
        assert loaded.head.weight[0, 0] == 5


def test_parameters_inside_a_flat_one_stay_inside_it(client: tensord.Client) -> None:
    flat = torch.arange(20, dtype=torch.float32)
    data = {"bias": flat[16:], "flat": flat, "weight": flat[:16].view(4, 4), "bits": flat[4:6].view(torch.int32)}
    with client.create("flat", data, ttl=600) as region:
        state = region.state_dict()
        offsets = {name: (region[name].alias_of, tensor.storage_offset()) for name, tensor in state.items()}
        assert offsets == {"bias": ("flat", 16), "flat": (None, 0), "weight": ("flat", 0), "bits": ("flat", 4)}
        state["weight"][3, 3] = -1
        assert state["flat"][15] == -1
        assert region["flat"].numpy()[15] == -1
        assert torch.equal(state["bits"], data["bits"])
