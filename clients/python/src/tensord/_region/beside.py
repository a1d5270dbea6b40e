"""Arrays with something beside their elements: a mask, a unit, an index, fields, another layout. A region holds
elements alone, so these are refused, with how to go on: nothing is dropped without a word.

Nothing is imported to find out: whoever passes an object of a library has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tensord._arguments.quoting import type_name

MAX_NESTING = 64
# Subclasses of numpy's array that are nothing but arrays.
_PLAIN_ARRAYS = (np.ndarray, np.memmap, np.matrix)
_SCALARS = frozenset({bool, int, float, complex})
_DROP = "convert it with numpy.asarray(…) first, if what it has beside its elements may be lost"
# Which library's arrays have what beside their elements, and how to go on.
_BESIDE = {
    "pint": ("a unit", "pass its .magnitude, and say the unit in labels="),
    "astropy": ("a unit", "pass its .value, and say the unit in labels="),
    "unyt": ("a unit", "pass its .value, and say the unit in labels="),
    "xarray": ("coordinates", "pass its .values, and the coordinates as tensors of their own"),
    "pyarrow": ("nulls", "pass .to_numpy() of it, and where it is null as a tensor of its own"),
    "polars": ("nulls and names", "pass .to_numpy() of each column, and where it is null as a tensor of its own"),
    "awkward": ("a layout", "pass awkward.to_numpy(…) of it, or its buffers as tensors of their own"),
    "sparse": ("coordinates", "pass .todense() of it, or its coords and data as tensors of their own"),
    "netCDF4": ("attributes and a mask", "pass variable[:].filled(…)"),
}


class Unstorable(Exception):
    """Something is more, or less, than an array of elements: why, and how to go on."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


def to_array(value: Any) -> np.ndarray[Any, Any]:
    """The elements of an array-like, where numpy sees them, with nothing lost. Raises ``Unstorable``, and what the
    array-like's own conversion raises.
    """
    if isinstance(value, (list, tuple)):
        _check_nested(value)
    elif isinstance(value, np.ndarray):
        return _check_array(value)
    else:
        _check_foreign(value)
    array = np.asarray(value)
    _check_dtype(array)
    return array


def check_torch(tensor: Any) -> None:
    """Raises ``Unstorable`` for a tensor of torch's that is more, or less, than its elements on the CPU."""
    import torch

    if tensor.is_nested:
        raise Unstorable("it is nested, want one shape", "pass its tensor.unbind(), or to_padded_tensor(…)")
    if torch.nn.parameter.is_lazy(tensor):
        raise Unstorable("it is not initialized", "run the module once first")
    if hasattr(tensor, "get_mask"):
        raise Unstorable("it has a mask", "pass its data and its mask as two tensors")
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise Unstorable(
            "it may have more than its elements", "pass tensor.as_subclass(torch.Tensor), if those are all that counts"
        )
    if tensor.device.type == "meta":
        raise Unstorable("it is on meta, which has no elements", "fill it first, as with to_empty(device='cpu')")
    if tensor.layout is not torch.strided:
        raise Unstorable(f"it is {tensor.layout}, want dense", "pass tensor.to_dense(), or its parts as tensors")
    if tensor.is_quantized:
        raise Unstorable(
            "it is quantized, with a scale beside its elements",
            "pass tensor.dequantize(), or int_repr() with scale and zero point as tensors of their own",
        )
    if tensor.device.type != "cpu":
        raise Unstorable(f"it is on {tensor.device}, want cpu", "pass tensor.cpu()")


def _check_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    _check_dtype(array)
    # Who made one has imported it; to ask numpy for it would.
    if "numpy.ma" in sys.modules and isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise Unstorable(
                f"{np.ma.getmaskarray(array).sum()} of its elements are masked",
                "pass .filled(x) of it, or its .data and its .mask as two tensors",
            )
        return np.ma.getdata(array)
    if type(array) not in _PLAIN_ARRAYS:
        what, hint = _beside(array) or ("more than its elements", _DROP)
        raise Unstorable(f"it {'may have' if hint == _DROP else 'has'} {what}", hint)
    return array


def _check_foreign(value: Any) -> None:
    if _root(value) == "pandas":
        _check_pandas(value)
    elif _is_scipy_sparse(value):
        raise Unstorable("it is sparse", "pass .toarray() of it, or its data and indices as tensors of their own")
    elif (beside := _beside(value)) is not None:
        raise Unstorable(f"it has {beside[0]}", beside[1])
    elif hasattr(type(value), "__array__") and not isinstance(value, np.generic) and hasattr(value, "mask"):
        raise Unstorable("it has a mask", "pass its elements and its mask as two tensors")


def _check_pandas(value: Any) -> None:
    # A series, an index, an array of its own, or a table.
    dtypes = list(value.dtypes) if hasattr(value, "columns") else [getattr(value, "dtype", None)]
    for dtype in dtypes:
        if dtype is not None and not isinstance(dtype, np.dtype):
            raise Unstorable(
                f"it is of pandas' type {dtype}, which may have nulls or categories",
                "pass .to_numpy(dtype=…, na_value=…) of it, and .isna() as a tensor of its own",
            )
    if len(set(dtypes)) > 1:
        raise Unstorable(
            f"its columns are of the types {', '.join(map(str, dtypes[:4]))} …",
            "pass {name: table[name].to_numpy() for name in table}",
        )
    for axis in ("columns", "index"):
        if not _is_counted(getattr(value, axis, None)):
            raise Unstorable(
                f"it has {'named columns' if axis == 'columns' else 'an index'}",
                "pass {name: table[name].to_numpy() for name in table}, and the index as a tensor of its own"
                if axis == "columns" or hasattr(value, "columns")
                else "pass .to_numpy() of it, and the index as a tensor of its own",
            )


def _is_counted(axis: Any) -> bool:
    """Whether an axis is nothing but 0, 1, 2 …"""
    return axis is None or (type(axis).__name__ == "RangeIndex" and axis.start == 0 and axis.step == 1)


def _check_nested(values: Any, depth: int = 0) -> None:
    """An array within lists would lose what it has beside its elements as well."""
    if depth > MAX_NESTING or set(map(type, values)) <= _SCALARS:
        return
    torch = sys.modules.get("torch")
    for value in values:
        if isinstance(value, (list, tuple)):
            _check_nested(value, depth + 1)
        elif isinstance(value, np.ndarray):
            _check_array(value)
        elif torch is not None and isinstance(value, torch.Tensor):
            check_torch(value)
        elif type(value) not in _SCALARS:
            _check_foreign(value)


def _check_dtype(array: np.ndarray[Any, Any]) -> None:
    dtype = array.dtype
    if dtype.names is not None:
        fields = ", ".join(map(repr, dtype.names[:4]))
        raise Unstorable(
            f"its elements are records of {fields}{' …' if len(dtype.names) > 4 else ''}",
            "pass {name: array[name] for name in array.dtype.names}",
        )
    if dtype.kind in "US":
        raise Unstorable("its elements are text", "pass its bytes as uint8, or numbers that stand for the texts")
    if dtype.kind in "mM":
        raise Unstorable(f"its elements are {dtype}, with a unit", "pass .view('int64'), and say the unit in labels=")
    if dtype.kind == "O":
        raise Unstorable(
            "it holds Python objects, want an array of numbers",
            "leave it out; numbers and arrays in it can be tensors of their own",
        )


def _root(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _beside(value: Any) -> tuple[str, str] | None:
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in _BESIDE:
            return _BESIDE[root]
    for word in ("units", "unit"):
        if hasattr(type(value), word) and not isinstance(value, np.generic):
            return "a unit", f"pass the bare numbers, and say the {type_name(value)}.{word} in labels="
    return None


def _is_scipy_sparse(value: Any) -> bool:
    return any(kind.__module__.startswith("scipy.sparse") for kind in type(value).__mro__)
