"""Tensors that are made of other tensors, as quantised weights are: taken apart into plain ones, and put together again
from others. By the protocol that torch.compile takes them apart by: ``__tensor_flatten__``, ``__tensor_unflatten__``.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from tensord._tensor.dtype import import_torch

if TYPE_CHECKING:
    from torch import Tensor

# Beside the module's own names, which begin with those of its attributes.
WRAPPERS_TENSOR = "tensord:wrappers"


def is_wrapper(value: Any) -> bool:
    """Whether ``value`` is a tensor without elements of its own, which says what it is made of."""
    kind = type(value)
    has_protocol = hasattr(kind, "__tensor_flatten__") and hasattr(kind, "__tensor_unflatten__")
    return has_protocol and isinstance(value, import_torch().Tensor)


def is_distributed(tensor: Tensor) -> bool:
    """Whether it holds one rank's part of something larger."""
    # Who has not imported it has none.
    distributed = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return distributed is not None and isinstance(tensor, distributed)


def parts_of(tensor: Tensor) -> dict[str, Tensor]:
    """The plain tensors in it by what leads to them, as ``.qdata``; a plain tensor itself by the empty path."""
    if not is_wrapper(tensor):
        return {"": tensor}
    return {
        f".{name}{path}": part for name in _flatten(tensor)[0] for path, part in parts_of(getattr(tensor, name)).items()
    }


def put_together(like: Tensor, parts: Mapping[str, Tensor], path: str = "") -> Tensor:
    """A tensor as ``like``, of ``parts``, which are named as ``parts_of(like)`` names its own. Nothing is copied."""
    if not is_wrapper(like):
        return parts[path]
    names, context = _flatten(like)
    inner = {name: put_together(getattr(like, name), parts, f"{path}.{name}") for name in names}
    made = type(like).__tensor_unflatten__(inner, context, like.size(), like.stride())  # type: ignore[attr-defined]
    return cast("Tensor", made)


def kind_of(tensor: Tensor) -> str:
    """What it is beside its parts, in which two of equal parts may differ: as JSON, the same in every process."""
    return json.dumps(_kind(tensor), sort_keys=True)


def _kind(tensor: Tensor) -> Any:
    if not is_wrapper(tensor):
        return None
    names, context = _flatten(tensor)
    inner = {name: kind for name in names if (kind := _kind(getattr(tensor, name))) is not None}
    return [type(tensor).__qualname__, _plain(context), list(tensor.size()), *([inner] if inner else [])]


def _plain(value: Any) -> Any:
    """Of what is no plain value the type's name: it may say another address, or device, in each process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (enum.Enum, import_torch().dtype)):
        return str(value)
    name = type(value).__qualname__
    if dataclasses.is_dataclass(value):
        return [name, {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}]
    return name


def _flatten(tensor: Tensor) -> tuple[list[str], Any]:
    return cast("tuple[list[str], Any]", tensor.__tensor_flatten__())  # type: ignore[attr-defined]
