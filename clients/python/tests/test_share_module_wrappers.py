"""Modules whose weights are tensors made of other tensors, as torchao's quantised ones are: these are shared, and the
weights made of them again.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

import tensord
from tensord.torch import private_bytes, share_module

torch = pytest.importorskip("torch", reason="torch is an extra")
nn = torch.nn
functional = nn.functional

WIDTH = 64


@dataclasses.dataclass
class How:
    """What a weight says of itself beside its tensors."""

    bits: int = 8
    dtype: Any = torch.float32


class Quantised(torch.Tensor):  # type: ignore[misc, name-defined]
    """A weight of int8 and a scale a row, as torchao makes them: it has no elements, and a product asks it."""

    @staticmethod
    def __new__(cls, data: Any, scale: Any, how: How, device: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=how.dtype, device=device or data.device)

    def __init__(self, data: Any, scale: Any, how: How, device: Any) -> None:
        self.data_int8, self.scale, self.how, self.device_said = data, scale, how, device

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["data_int8", "scale"], (self.how, self.device_said)

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, Any], context: Any, _size: Any, _stride: Any) -> Any:
        return cls(inner["data_int8"], inner["scale"], *context)

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            (weight,) = args
            return cls(weight.data_int8, weight.scale, weight.how, weight.device_said)
        raise NotImplementedError(func)

    @classmethod
    def __torch_function__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear:
            x, weight, *rest = args
            values = weight.data_int8.to(torch.float32) * parts(weight.scale) * weight.how.bits
            return functional.linear(x, values, *rest)
        return super().__torch_function__(func, kinds, args, kwargs or {})


def parts(scale: Any) -> Any:
    return scale.data_int8 * scale.scale if isinstance(scale, Quantised) else scale


def quantise(weight: Any, how: How | None = None, *, nested: bool = False, device: Any = None) -> Any:
    scale = weight.detach().abs().amax(1, keepdim=True) / 127
    if nested:
        scale = Quantised(torch.ones_like(scale, dtype=torch.int8), scale, How(), None)
    data = (weight.detach() / parts(scale)).round().to(torch.int8)
    return nn.Parameter(Quantised(data, scale, how or How(), device), requires_grad=False)


def build(**more: Any) -> Any:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Embedding(20, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False))
    module[1].weight = quantise(module[1].weight, **more)
    module[2].weight = module[1].weight
    return module.eval()


@pytest.mark.parametrize("nested", [False, True], ids=["of plain tensors", "of such tensors"])
def test_what_weights_are_made_of_is_shared_and_answers_are_equal(client: tensord.Client, nested: bool) -> None:
    stock = build(nested=nested)
    modules = [share_module("net", lambda: build(nested=nested), fingerprint="1", client=client) for _ in range(3)]
    tokens = torch.arange(6)
    assert private_bytes(stock) >= WIDTH * WIDTH
    with client.attach("net") as region:
        assert region["1.weight.data_int8"].dtype == "I8"
        for module in modules:
            weight = module[1].weight
            assert isinstance(weight, Quantised)
            assert isinstance(weight, nn.Parameter)
            assert module[2].weight is weight
            assert weight.data_int8.data_ptr() != stock[1].weight.data_int8.data_ptr()
            assert torch.equal(weight.data_int8, region["1.weight.data_int8"].torch())
            assert torch.equal(module(tokens), stock(tokens))
            assert private_bytes(module) == 0
    with torch.no_grad():
        modules[0][1].weight.data_int8[0, 0] += 1
    assert private_bytes(modules[0]) > 0
    assert torch.equal(modules[1](tokens), stock(tokens))


@pytest.mark.parametrize(
    ("empty", "problem"),
    [
        (lambda: build(how=How(bits=4)), r"'1.weight' is .*\"bits\": 4.* in it, was built as .*\"bits\": 8"),
        (lambda: build(nested=True), "it has in addition '1.weight.scale.data_int8'"),
        (lambda: nn.Sequential(nn.Embedding(20, WIDTH)), r"it lacks '1\.weight\.data_int8'"),
    ],
    ids=["context", "parts", "nothing"],
)
def test_weights_of_another_kind_are_refused(client: tensord.Client, empty: Callable[[], Any], problem: str) -> None:
    kept = share_module("net", build, fingerprint="1", client=client)
    with pytest.raises(tensord.ValidationFailed, match=problem):
        share_module("net", build, empty, fingerprint="1", client=client)
    assert private_bytes(kept) == 0


def test_weights_that_say_themselves_that_they_are_on_meta_are_refused(client: tensord.Client) -> None:
    def say_device() -> Any:
        return build(device=torch.empty(0).device)

    kept = share_module("net", say_device, fingerprint="1", client=client)
    with pytest.raises(tensord.ValidationFailed, match=r"'1.weight', a Quantised, says .* on meta(.|\n)*build_empty="):
        share_module("net", say_device, fingerprint="1", client=client)
    module = share_module("net", say_device, say_device, fingerprint="1", client=client)
    assert (private_bytes(kept), private_bytes(module)) == (0, 0)


def test_what_each_rank_has_a_part_of_is_refused(client: tensord.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch.distributed.tensor")
    module.DTensor = Quantised  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.distributed.tensor", module)
    with pytest.raises(tensord.ValidationFailed, match=r"each rank has another part of '1\.weight', '2\.weight'"):
        share_module("net", build, fingerprint="1", client=client)
