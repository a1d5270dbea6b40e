"""Arrays that have something beside their elements are refused by name, or kept whole: nothing is lost in silence."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import LONG

import tensord
from tensord._region.copy import to_sources


class WithUnit:
    """An array-like that numpy takes, and that has a unit."""

    units = "m"

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        return np.ones(3)


class Measured(np.ndarray[Any, Any]):
    """A subclass of numpy's array, which may have anything."""


class Broken:
    """Whose own conversion fails, as that of an array on another device does."""

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        raise RuntimeError("it is on the device")


MASKED = np.ma.masked_array([1.0, -9999.0, 3.0], mask=[False, True, False])
RECORDS = np.zeros(2, [("x", "f4"), ("y", "i4")])

REFUSED: list[tuple[Any, str]] = [
    (MASKED, r"1 of its elements are masked\nhint: pass \.filled\(x\) of it, or its \.data and its \.mask as two"),
    (np.ma.masked, "masked"),
    ([MASKED, MASKED], "masked"),
    ([[1.0], (MASKED[:1], MASKED[1:2])], "masked"),
    (RECORDS, r"records of 'x', 'y'\nhint: pass \{name: array\[name\]"),
    (RECORDS[0], "records"),
    (RECORDS.view(np.recarray), "records"),
    (np.ma.masked_array(RECORDS), "records"),
    (WithUnit(), "has a unit"),
    ([WithUnit(), WithUnit()], "has a unit"),
    (np.ones(2).view(Measured), r"more than its elements\nhint: convert it with numpy\.asarray"),
    (np.array(["2026-11-28"], "M8[D]"), r"datetime64\[D\], with a unit"),
    (np.array(["a", "b"]), "are text"),
    (np.array([None]), "Python objects"),
    (None, "Python objects"),
    (io.BytesIO(b"x"), "Python objects"),
    ({"step": np.ones(1)}, "Python objects"),
    (np.zeros(2, complex), "elements of type complex128: regions hold"),
    ([[1], [2, 3]], "inhomogeneous"),
    (Broken(), "RuntimeError: it is on the device"),
]


@pytest.mark.parametrize(("value", "why"), REFUSED, ids=[type(value).__name__ for value, _ in REFUSED])
def test_one_of_many_is_refused_by_its_name_and_type(value: Any, why: str) -> None:
    name = "layers.7.attn._extra_state"
    plain: dict[str, Any] = {f"layers.{number}.weight": np.zeros(2, np.float32) for number in range(400)}
    with pytest.raises(tensord.ValidationFailed, match=why) as caught:
        to_sources({**plain, name: value})
    assert f"Cannot store tensor {name!r} (" in str(caught.value)
    assert type(value).__name__ in str(caught.value)


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(tensord.ValidationFailed, match="Cannot store tensor 'data'"):
        to_sources(endless)


def test_one_of_many_that_are_asked_for_is_refused_by_its_name(client: tensord.Client) -> None:
    for spec, why in (
        ((None, (2,)), "elements of type None"),
        (("F32", -1), "its shape is -1, want"),
        (("F32", (2, 1.5)), "its shape is"),
        (("F32", {2, 3}), "its shape is"),
        (("F32", "23"), "its shape is '23'"),
        ("F32", r"it is 'F32', want \(dtype, shape\)"),
    ):
        with pytest.raises(tensord.ValidationFailed, match=f"Cannot have tensor 'second': {why}"):
            client.create("x", tensors={"first": ("F32", 2), "second": spec}, ttl=60)  # type: ignore[dict-item]


def test_a_build_that_returns_nothing_is_told_so(client: tensord.Client) -> None:
    with pytest.raises(tensord.ValidationFailed, match=r"build\(\) returned None"):
        client.get_or_create("x", lambda: None)


@pytest.mark.parametrize(
    "array",
    [
        np.ma.masked_array([1.0, 2.0]),
        np.ma.masked_array([1.0, 2.0], mask=[False, False]),
        np.ones((1, 2)).view(np.matrix),
        np.float32(1.5),
        [np.float64(1.5), 2],
        [np.ones(2), [1.0, 2.0]],
        memoryview(np.arange(3)),
        range(3),
    ],
    ids=lambda array: type(array).__name__,
)
def test_what_is_an_array_and_nothing_else_is_taken(client: tensord.Client, array: Any) -> None:
    with client.create("x", array, ttl=60) as region:
        assert np.array_equal(region.numpy(), np.asarray(array))


def test_a_mapped_file_of_numpys_is_taken(client: tensord.Client, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    with client.create("x", np.load(tmp_path / "a.npy", mmap_mode="r"), ttl=60) as region:
        assert region.numpy().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda torch: torch.eye(2).to_sparse(), "sparse"),
        (lambda torch: torch.ones(2, device="meta"), "on meta, which has no elements"),
        (lambda torch: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested"),
        pytest.param(
            lambda torch: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
            "nested",
            marks=pytest.mark.skipif(not LONG, reason="imports torch's compiler, which takes long: npm test -- --long"),
        ),
        (lambda torch: torch.nn.parameter.UninitializedParameter(), "not initialized"),
        (lambda torch: torch.ones(2).as_subclass(type("Own", (torch.Tensor,), {})), r"as_subclass\(torch\.Tensor\)"),
        (lambda torch: [torch.ones(2).to_sparse()], "sparse"),
    ],
    ids=["sparse", "meta", "nested", "jagged", "lazy", "subclass", "in a list"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_of_torchs_that_are_no_plain_elements_are_refused(make: Callable[[Any], Any], why: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    with pytest.raises(tensord.ValidationFailed, match=why) as caught:
        to_sources({"plain": torch.ones(1), "w": make(torch)})
    assert "Cannot store tensor 'w' (" in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantized_tensor_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    with pytest.raises(
        tensord.ValidationFailed, match=r"quantized, with a scale .*\nhint: pass tensor\.dequantize\(\)"
    ):
        to_sources({"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)})


def test_a_lazy_conjugate_a_negation_and_a_gradient_are_kept_whole(client: tensord.Client) -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    data = {
        "conjugate": tensor.conj(),
        "negation": tensor.conj().imag,
        "gradient": torch.ones(2, requires_grad=True) * 2,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    with client.create("x", data, ttl=60) as region:
        for name, value in data.items():
            assert torch.equal(region[name].torch(), value.detach().resolve_conj().resolve_neg())


def test_tables_of_pandas_and_matrices_of_scipy_are_refused_unless_they_are_plain() -> None:
    pandas = pytest.importorskip("pandas", reason="no dependency: run where it is installed")
    scipy_sparse = pytest.importorskip("scipy.sparse", reason="no dependency: run where it is installed")
    for value, why in (
        (pandas.Series([1.0], index=["a"]), "has an index"),
        (pandas.Series([1, None], dtype="Int64"), "may have nulls"),
        (pandas.Series(["a"], dtype="category"), "categories"),
        (pandas.DataFrame({"a": [1.0]}), "named columns"),
        (pandas.DataFrame([[1, 1.5]]), "types int64, float64"),
        (scipy_sparse.eye(3), "is sparse"),
        (scipy_sparse.csr_array(np.eye(3)), "is sparse"),
    ):
        with pytest.raises(tensord.ValidationFailed, match=why):
            to_sources({"x": value})
    (source,) = to_sources(pandas.Series([1.0, 2.0]))
    assert source.array.tolist() == [1.0, 2.0]
