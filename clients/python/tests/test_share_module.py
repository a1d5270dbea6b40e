"""Modules of torch: one process builds, all of them have its tensors, and the memory of none is copied."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness import DEADLINE_SECONDS, wait_for

import tensord
import tensord.torch
from tensord.torch import private_bytes, share_module

torch = pytest.importorskip("torch", reason="torch is an extra")
nn = torch.nn

PAGE_BYTES = 4096


class Block(nn.Module):  # type: ignore[misc, name-defined]
    """Everything in which a module may keep a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(64)
        self.memory = nn.LSTM(64, 32, batch_first=True)
        self.register_buffer("angles", torch.arange(32, dtype=torch.float32) / 7, persistent=False)
        self.also_angles = self.angles
        self.register_buffer("row", self.embedding.weight.detach()[3])
        self.scale = torch.full((3,), 0.5, dtype=torch.float64)
        self.frozen = nn.Parameter(torch.ones(4, dtype=torch.int64), requires_grad=False)
        self.nothing = nn.Parameter(torch.zeros(0, 3))

    def forward(self, tokens: Any) -> Any:
        seen, _ = self.memory(self.embedding(tokens))
        return self.head(torch.cat([seen, seen], -1) * self.scale[0] + self.row) * self.angles[1]


def _build() -> Any:
    torch.manual_seed(5)
    return Block().eval()


def _fail() -> Any:
    raise AssertionError("it is built already")


def _empty() -> Any:
    with torch.device("meta"):
        return _build()


def test_every_tensor_of_a_module_is_shared_and_answers_are_the_same(client: tensord.Client) -> None:
    stock, calls = _build(), []

    def build() -> Any:
        calls.append(torch.empty(0).is_meta)
        return _build()

    modules = [share_module("block", build, fingerprint="1", client=client) for _ in range(2)]
    assert calls == [False, True]
    modules.append(share_module("block", _fail, _empty, fingerprint="1", client=client))
    tokens = torch.arange(12).reshape(2, 6)
    with client.attach("block") as region:
        for module in modules:
            assert private_bytes(module) == 0
            assert torch.equal(module(tokens), stock(tokens))
            assert list(module.state_dict()) == list(stock.state_dict())
            assert not module.training
            held = {**dict(module.named_parameters()), **dict(module.named_buffers()), "scale": module.scale}
            for name, tensor in held.items():
                assert torch.equal(tensor, region[name].torch()), name
                assert tensor.requires_grad == (isinstance(tensor, nn.Parameter) and name != "frozen")
            assert module.head.weight is module.embedding.weight
            assert module.also_angles is module.angles
            assert module.row.untyped_storage().data_ptr() == module.head.weight.data_ptr()
            assert all(any(each is weight for weight in module.parameters()) for each in module.memory._flat_weights)
    assert private_bytes(stock) >= stock.embedding.weight.nbytes


def test_the_region_is_used_as_long_as_a_tensor_of_the_module_is_there(client: tensord.Client) -> None:
    module = share_module("block", lambda: nn.Linear(64, 64), fingerprint="1", client=client, linger=0)
    weight = module.weight.detach()
    del module
    assert client.get("block").in_use
    assert weight.shape == (64, 64)


def test_a_cast_is_made_once(client: tensord.Client) -> None:
    def build() -> Any:
        return _build().to(torch.bfloat16)

    stock = build()
    for _ in range(2):
        module = share_module("cast", build, fingerprint={"dtype": "bfloat16"}, client=client)
        assert private_bytes(module) == 0
        assert module.head.weight.dtype == torch.bfloat16
        assert module.frozen.dtype == torch.int64
        assert torch.equal(module(torch.tensor([[1, 2]])), stock(torch.tensor([[1, 2]])))


def test_a_write_in_place_stays_this_workers_own_page(client: tensord.Client) -> None:
    def build() -> Any:
        return nn.Linear(1024, 64, bias=False)

    built, module = (share_module("linear", build, fingerprint="1", client=client) for _ in range(2))
    with torch.no_grad():
        module.weight[0, 0] = 7
    assert 0 < private_bytes(module) <= PAGE_BYTES
    assert (private_bytes(built), built.weight[0, 0] == 7) == (0, False)
    module(torch.ones(1, 1024)).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()
    assert private_bytes(module) >= module.weight.nbytes + module.weight.grad.nbytes
    assert not torch.equal(module.weight, built.weight)
    assert private_bytes(share_module("linear", build, fingerprint="1", client=client)) == 0


def test_another_fingerprint_is_another_version_and_the_log_says_what_differs(
    client: tensord.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def share(layers: int, code: str) -> Any:
        marks = {"config": {"layers": layers}, "code": code}
        return share_module("net", lambda: nn.Linear(2, layers), fingerprint=marks, client=client)

    def told() -> list[str]:
        # A machine that stands still for long has the client tell of its session, too.
        return [message for message in caplog.messages if "fingerprint" in message]

    with caplog.at_level(logging.WARNING, "tensord"):
        old, again = share(3, "a"), share(3, "a")
        assert told() == []
        new = share(4, "a")
        assert (old.out_features, again.out_features, new.out_features) == (3, 3, 4)
        versions = {region.version for region in client.list(name="net")}
        assert len(versions) == 2
        (message,) = told()
        assert all(version in message for version in versions)
        assert message.endswith("since its fingerprint differs: fingerprint.config.layers is 4, was 3")
        # Both stand, and neither is built again.
        assert torch.equal(share(3, "a").weight, old.weight)
        assert torch.equal(share(4, "a").weight, new.weight)
        assert len(told()) == 1


def test_versions_of_the_libraries_are_in_the_fingerprint(
    client: tensord.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [share_module("net", lambda: nn.Linear(2, 3), fingerprint="1", client=client)]
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with caplog.at_level(logging.WARNING, "tensord"):
        kept.append(share_module("net", lambda: nn.Linear(2, 3), fingerprint="1", client=client))
    assert "torch is '9.9.9', was '2." in caplog.text
    assert not torch.equal(kept[0].weight, kept[1].weight)


def test_threads_get_a_module_each_and_one_of_them_builds(client: tensord.Client) -> None:
    built, modules = [], []

    def build() -> Any:
        module = nn.Linear(64, 64)
        if not module.weight.is_meta:
            built.append(module)
        return module

    def share() -> None:
        modules.append(share_module("linear", build, fingerprint="1", client=client))

    threads = [threading.Thread(target=share) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert (len(built), len({id(module) for module in modules})) == (1, 6)
    assert all(torch.equal(module.weight, modules[0].weight) and private_bytes(module) == 0 for module in modules)


class Reader(nn.Module):  # type: ignore[misc, name-defined]
    """Looks at elements while it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4.0))
        self.last = self.weight[3].item()


class Hidden(nn.Module):  # type: ignore[misc, name-defined]
    """Keeps tensors where no module looks."""

    def __init__(self, hide: Callable[[Any], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4.0))
        self.hidden = hide(self.weight)


def _close_over(weight: Any) -> Any:
    return lambda: weight


class _Box:
    __slots__ = ("inside",)

    def __init__(self, inside: Any) -> None:
        self.inside = inside


def test_a_build_that_looks_at_elements_needs_an_empty_one(client: tensord.Client) -> None:
    kept = share_module("reader", Reader, fingerprint="1", client=client)
    with pytest.raises(
        tensord.ValidationFailed, match=r"build\(\) fails under torch.device\('meta'\)(.|\n)*build_empty="
    ) as caught:
        share_module("reader", Reader, fingerprint="1", client=client)
    assert "item" in str(caught.value)
    module = share_module("reader", Reader, Reader, fingerprint="1", client=client)
    assert (private_bytes(module), module.last, kept.last) == (0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("hide", "where"),
    [
        (lambda weight: [weight], r"hidden\[0\]"),
        (lambda weight: {"a": (weight.detach()[1:],)}, r"hidden\['a'\]\[0\]"),
        (_close_over, r"hidden\(\)"),
        (_Box, r"hidden\.inside"),
    ],
    ids=["list", "view", "closure", "slots"],
)
def test_what_would_keep_the_replaced_memory_is_named(client: tensord.Client, hide: Any, where: str) -> None:
    with pytest.raises(tensord.ValidationFailed, match=f"{where}.* is memory of a tensor that was replaced"):
        share_module("hidden", lambda: Hidden(hide), fingerprint="1", client=client)


def test_nothing_is_left_on_meta_without_a_word(client: tensord.Client) -> None:
    def build() -> Any:
        return Hidden(lambda _: [torch.ones(3)])

    module = share_module("hidden", build, fingerprint="1", client=client)
    assert private_bytes(module) == 12
    with pytest.raises(tensord.ValidationFailed, match=r"'hidden\[0\]' is on meta(.|\n)*register_buffer"):
        share_module("hidden", build, fingerprint="1", client=client)
    module = share_module("hidden", build, build, fingerprint="1", client=client)
    assert module.hidden[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("empty", "problem"),
    [
        (lambda: nn.Linear(3, 2), r"'weight' is float32 \[2, 3\] in it, was built as float32 \[3, 2\]"),
        (lambda: nn.Linear(2, 3, dtype=torch.float16), r"'weight' is float16 \[3, 2\] in it"),
        (lambda: nn.Linear(2, 3, bias=False), "it lacks 'bias'"),
        (lambda: nn.Sequential(nn.Linear(2, 3)), "it has in addition '0.weight', '0.bias'; it lacks 'weight', 'bias'"),
        (lambda: [1], "it is of type list, want a torch.nn.Module"),
    ],
    ids=["shape", "dtype", "missing", "names", "no module"],
)
def test_an_empty_module_that_is_another_is_refused(client: tensord.Client, empty: Any, problem: str) -> None:
    kept = share_module("net", lambda: nn.Linear(2, 3), fingerprint="1", client=client)
    with pytest.raises(tensord.ValidationFailed, match=problem):
        share_module("net", _fail, empty, fingerprint="1", client=client)
    assert private_bytes(kept) == 0


def test_an_empty_module_that_ties_what_is_not_tied_is_refused(client: tensord.Client) -> None:
    def build(*, tied: bool = False) -> Any:
        pair = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        if tied:
            pair[1].weight = pair[0].weight
        return pair

    kept = share_module("pair", build, fingerprint="1", client=client)
    with pytest.raises(tensord.ValidationFailed, match=r"'0.weight' and '1.weight' are one tensor in it, and two"):
        share_module("pair", _fail, lambda: build(tied=True), fingerprint="1", client=client)
    assert private_bytes(kept) == 0


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_packed_weights_are_refused_and_what_is_not_packed_can_be_shared_before(client: tensord.Client) -> None:
    def build() -> Any:
        return nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 64))

    def quantise(module: Any) -> Any:
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, inplace=True)

    with pytest.raises(
        tensord.ValidationFailed, match=r"has packed the weights of '1\._packed_params(.|\n)*quantize_dynamic"
    ):
        share_module("quantised", lambda: quantise(build()), fingerprint="1", client=client)
    wait_for(lambda: client.stats().claims == 0, "the turn is given on")
    kept = share_module("float", build, fingerprint="1", client=client)
    module = quantise(share_module("float", build, fingerprint="1", client=client))
    # An int8 weight, and the bias, which stays what it was.
    assert 64 * 64 <= private_bytes(module) <= 64 * 64 + 64 * 4
    assert torch.equal(module[0].weight, kept[0].weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_module_is_refused_and_the_turn_given_on(client: tensord.Client) -> None:
    for build, problem in (
        (lambda: {"weight": torch.ones(2)}, "it is of type dict, want a torch.nn.Module"),
        (lambda: nn.Sequential(torch.jit.script(nn.Linear(2, 2))), "0 is a ScriptModule"),
        (lambda: nn.LazyLinear(2), "it is not initialized"),
    ):
        with pytest.raises(tensord.ValidationFailed, match=problem):
            share_module("net", build, fingerprint="1", client=client)
    assert private_bytes(share_module("net", lambda: nn.Linear(2, 2), fingerprint="1", client=client)) == 0


@pytest.mark.parametrize(
    "fingerprint",
    [None, object(), {"dtype": torch.float16}, float("nan"), {1, 2}],
    ids=["nothing", "an object", "a dtype", "no number", "a set"],
)
def test_a_fingerprint_is_the_same_in_every_process_or_refused(client: tensord.Client, fingerprint: Any) -> None:
    with pytest.raises(tensord.ValidationFailed, match=r"fingerprint is .*, want text, numbers, lists and mappings"):
        share_module("net", _fail, fingerprint=fingerprint, client=client)


def test_private_bytes_counts_what_is_a_processs_own(client: tensord.Client) -> None:
    own = torch.ones(10 * PAGE_BYTES, dtype=torch.uint8)
    assert private_bytes([own, own[5:], {"a": own.view(torch.float32)}]) == own.nbytes
    # Pages that were never there take nothing.
    assert private_bytes(torch.empty(1 << 26, dtype=torch.uint8)) < 1 << 22
    with client.create("t", own, ttl=600) as region:
        region.seal()
        shared = region.torch()
        assert private_bytes(shared) == 0
        shared[2 * PAGE_BYTES :: PAGE_BYTES] += 1
        assert private_bytes(shared) == 8 * PAGE_BYTES
    with client.create("heap", own, ttl=600, storage="heap") as region:
        region.seal()
        assert private_bytes(region.torch()) == own.nbytes
    with pytest.raises(tensord.ValidationFailed, match="no tensor is reached from it"):
        private_bytes([1, "a", None])


def test_a_kernel_that_does_not_say_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied", "/proc/self/pagemap")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(tensord.FeatureUnavailable, match=r"Cannot tell what is private(.|\n)*pagemap"):
        private_bytes(torch.ones(3))
