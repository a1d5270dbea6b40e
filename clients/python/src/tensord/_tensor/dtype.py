"""The table of element types: safetensors' names, their bits, and what numpy and torch call them.

numpy's own types need nothing; bf16 and fp8 come from ``ml_dtypes`` in numpy, and torch is asked only by those who
use it.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tensord._arguments.kinds import MAX_BYTES
from tensord._arguments.quoting import quote
from tensord._errors import FeatureUnavailable, ValidationFailed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Row:
    bits: int
    numpy: str | None = None
    ml_dtypes: str | None = None
    torch: str | None = None


# Of a type that is not among them.
_UNKNOWN = _Row(0)

_TABLE: dict[str, _Row] = {
    "BOOL": _Row(8, numpy="bool", torch="bool"),
    "F4": _Row(4),
    "F6_E2M3": _Row(6),
    "F6_E3M2": _Row(6),
    "U8": _Row(8, numpy="uint8", torch="uint8"),
    "I8": _Row(8, numpy="int8", torch="int8"),
    "F8_E5M2": _Row(8, ml_dtypes="float8_e5m2", torch="float8_e5m2"),
    "F8_E4M3": _Row(8, ml_dtypes="float8_e4m3fn", torch="float8_e4m3fn"),
    "F8_E8M0": _Row(8, ml_dtypes="float8_e8m0fnu", torch="float8_e8m0fnu"),
    "F8_E4M3FNUZ": _Row(8, ml_dtypes="float8_e4m3fnuz", torch="float8_e4m3fnuz"),
    "F8_E5M2FNUZ": _Row(8, ml_dtypes="float8_e5m2fnuz", torch="float8_e5m2fnuz"),
    "I16": _Row(16, numpy="int16", torch="int16"),
    "U16": _Row(16, numpy="uint16", torch="uint16"),
    "F16": _Row(16, numpy="float16", torch="float16"),
    "BF16": _Row(16, ml_dtypes="bfloat16", torch="bfloat16"),
    "I32": _Row(32, numpy="int32", torch="int32"),
    "U32": _Row(32, numpy="uint32", torch="uint32"),
    "F32": _Row(32, numpy="float32", torch="float32"),
    "C64": _Row(64, numpy="complex64", torch="complex64"),
    "F64": _Row(64, numpy="float64", torch="float64"),
    "I64": _Row(64, numpy="int64", torch="int64"),
    "U64": _Row(64, numpy="uint64", torch="uint64"),
}
# Those that numpy has without a package of others.
NUMPY_DTYPES = tuple(name for name, row in _TABLE.items() if row.numpy is not None)
# numpy's, ml_dtypes' and torch's words for one type never contradict each other.
_BY_WORD = {
    word: name for name, row in _TABLE.items() for word in (row.numpy, row.ml_dtypes, row.torch) if word is not None
}


def is_dtype(name: str) -> bool:
    """Whether safetensors has an element type of that name."""
    return name in _TABLE


def parse_dtype(value: Any) -> str:
    """The safetensors name of an element type.

    ``value`` is such a name (``"BF16"``), numpy's or torch's word (``"float32"``, ``"bfloat16"``), a numpy dtype or
    scalar type, or a ``torch.dtype``. Byte order is dropped: regions are little-endian. Raises ``ValidationFailed``.
    """
    if isinstance(value, str) and value in _TABLE:
        return value
    word = str(value).removeprefix("torch.") if _is_torch_dtype(value) else value
    if not (isinstance(word, str) and word in _BY_WORD):
        try:
            # Not what numpy makes of anything else: None is its default, a list a record.
            word = _word_of_numpy(word) if isinstance(word, (str, type, np.dtype)) else quote(value)
        except (TypeError, ValueError, SyntaxError, DeprecationWarning):
            word = quote(value)
    name = _BY_WORD.get(word)
    if name is None:
        raise ValidationFailed(
            f"Cannot store elements of type {word}: regions hold {', '.join(_TABLE)}",
            hint="convert it first, or store its bytes as U8",
        )
    return name


def element_bytes(dtype: str) -> int:
    """Bytes of an element, and what its place is a multiple of; 1 for those that share a byte with others."""
    return max(1, _TABLE[dtype].bits // 8)


def byte_size_of(dtype: str, shape: Iterable[int]) -> int:
    """Bytes of a tensor. Raises ``ValidationFailed`` if its bits are no whole bytes, or too many."""
    shape = tuple(shape)
    bits = math.prod(shape) * _TABLE[dtype].bits
    if bits % 8 != 0 or bits // 8 > MAX_BYTES:
        state = "it would be too large" if bits // 8 > MAX_BYTES else f"its {bits} bits are no whole bytes"
        raise ValidationFailed(f"Cannot have {dtype} of shape {str(list(shape))[:200]}: {state}")
    return bits // 8


def to_numpy_dtype(dtype: str) -> np.dtype[Any]:
    """numpy's dtype for a safetensors name. Raises ``FeatureUnavailable``."""
    row = _TABLE.get(dtype, _UNKNOWN)
    if row.numpy is not None:
        return np.dtype(row.numpy)
    if row.ml_dtypes is None:
        raise FeatureUnavailable(f"Cannot show {dtype} in numpy: it has no such type", hint="use .bytes()")
    try:
        module = importlib.import_module("ml_dtypes")
    except ImportError as error:
        raise FeatureUnavailable(
            f"Cannot show {dtype} in numpy: ml_dtypes is not installed",
            hint='pip install ml_dtypes (or "tensord[dtypes]"), or use .torch() or .bytes()',
        ) from error
    found: np.dtype[Any] = np.dtype(getattr(module, row.ml_dtypes))
    return found


def to_torch_dtype(dtype: str) -> torch.dtype:
    """torch's dtype for a safetensors name. Raises ``FeatureUnavailable``."""
    word = _TABLE.get(dtype, _UNKNOWN).torch
    found = None if word is None else getattr(import_torch(), word, None)
    if found is None:
        raise FeatureUnavailable(f"Cannot show {dtype} in torch: it has no such type", hint="use .bytes()")
    result: torch.dtype = found
    return result


def to_shared_dtypes(dtype: str) -> tuple[torch.dtype, np.dtype[Any] | None]:
    """torch's dtype for a safetensors name, and numpy's, if it has one by itself. Raises ``FeatureUnavailable``."""
    word = _TABLE.get(dtype, _UNKNOWN).numpy
    return to_torch_dtype(dtype), None if word is None else np.dtype(word)


def import_torch() -> Any:
    """The module torch. Raises ``FeatureUnavailable``."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise FeatureUnavailable(
            "Cannot make a torch tensor: torch is not installed", hint='pip install torch (or "tensord[torch]")'
        ) from error


@functools.lru_cache(maxsize=256)
def _word_of_numpy(dtype: str | type | np.dtype[Any]) -> str:
    """numpy's word, which it puts together anew each time: of 100,000 arrays that takes half a second."""
    return np.dtype(dtype).name


def _is_torch_dtype(value: Any) -> bool:
    module = sys.modules.get("torch")
    return module is not None and isinstance(value, module.dtype)
