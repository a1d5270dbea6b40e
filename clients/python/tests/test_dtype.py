"""The table of element types against numpy, torch, ml_dtypes and safetensors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import tensord
from tensord._tensor import dtype as dtypes


@pytest.mark.parametrize("name", [name for name, row in dtypes._TABLE.items() if row.numpy or row.ml_dtypes])
def test_numpy_types_have_the_width_that_the_table_says(name: str) -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes gives numpy bf16 and fp8")
    dtype = dtypes.to_numpy_dtype(name)
    assert dtype.itemsize * 8 == dtypes._TABLE[name].bits
    assert dtypes.parse_dtype(dtype) == name


@pytest.mark.parametrize("name", [name for name, row in dtypes._TABLE.items() if row.torch])
def test_torch_types_have_the_width_that_the_table_says(name: str) -> None:
    pytest.importorskip("torch", reason="torch is an extra")
    dtype = dtypes.to_torch_dtype(name)
    assert dtype.itemsize * 8 == dtypes._TABLE[name].bits
    assert dtypes.parse_dtype(dtype) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("BF16", "BF16"),
        ("bfloat16", "BF16"),
        ("float8_e4m3fn", "F8_E4M3"),
        ("float32", "F32"),
        (float, "F64"),
        (bool, "BOOL"),
        (np.float16, "F16"),
        (np.dtype(">i4"), "I32"),
        ("<u8", "U64"),
        (np.complex64, "C64"),
        (np.intc, "I32"),
    ],
)
def test_a_type_may_be_said_in_many_ways(value: object, name: str) -> None:
    assert dtypes.parse_dtype(value) == name


@pytest.mark.parametrize(
    "value",
    [object, "S3", str, np.complex128, "datetime64[ns]", [("a", "i4")], "F7", "f32x", 5, None.__class__, "F128"],
)
def test_a_type_that_regions_do_not_hold_is_refused(value: object) -> None:
    with pytest.raises(tensord.ValidationFailed, match="Cannot store elements of type"):
        dtypes.parse_dtype(value)


def test_a_type_that_numpy_lacks_points_to_the_bytes() -> None:
    for name in ("F4", "F6_E2M3", "F2_OF_TOMORROW"):
        with pytest.raises(tensord.FeatureUnavailable, match=r"use \.bytes\(\)"):
            dtypes.to_numpy_dtype(name)
        with pytest.raises(tensord.FeatureUnavailable, match=r"use \.bytes\(\)"):
            dtypes.to_torch_dtype(name)


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(tensord.FeatureUnavailable, match="pip install ml_dtypes"):
        dtypes.to_numpy_dtype("BF16")
    with pytest.raises(tensord.FeatureUnavailable, match="pip install torch"):
        dtypes.to_torch_dtype("F32")


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("F32", (), 4), ("F32", (0, 5), 0), ("F4", (4,), 2), ("F6_E2M3", (4, 3), 9), ("I64", (2, 3), 48)],
)
def test_sizes_follow_from_bits(dtype: str, shape: tuple[int, ...], size: int) -> None:
    assert dtypes.byte_size_of(dtype, shape) == size


@pytest.mark.parametrize(("dtype", "shape"), [("F4", (3,)), ("F6_E3M2", (2,)), ("U8", (1 << 40, 1 << 40))])
def test_sizes_that_are_no_whole_bytes_or_too_many_are_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(tensord.ValidationFailed):
        dtypes.byte_size_of(dtype, shape)
