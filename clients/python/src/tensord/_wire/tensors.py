"""A region's tensors as the server listed them. There may be 100,000, of which most callers want a few: a record is
made of each when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of a region: ``byte_offset`` counts from the start of the region's file. ``alias_of`` names the tensor
    whose bytes these are, if they are another's; ``logical`` says what they stand for where no dtype does, as a
    ``type`` and a ``shape`` in elements of it: blocks of quantised elements of a GGUF file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    byte_offset: int
    byte_size: int
    alias_of: str | None = None
    logical: Mapping[str, Any] | None = field(default=None, hash=False)


class TensorInfos(Sequence[TensorInfo]):
    """The tensors in the region's order. It equals a tuple of the same ones."""

    __slots__ = ("_by_name", "_listed")

    def __init__(self, listed: list[schemas.Tensor]) -> None:
        self._listed = listed
        self._by_name = {tensor["name"]: tensor for tensor in listed}

    @overload
    def __getitem__(self, index: int) -> TensorInfo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TensorInfo, ...]: ...
    def __getitem__(self, index: int | slice) -> TensorInfo | tuple[TensorInfo, ...]:
        if isinstance(index, slice):
            return tuple(map(_to_info, self._listed[index]))
        return _to_info(self._listed[index])

    def __iter__(self) -> Iterator[TensorInfo]:
        return map(_to_info, self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TensorInfos):
            return self._listed is other._listed or tuple(self) == tuple(other)
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    @property
    def by_name(self) -> Mapping[str, TensorInfo]:
        """The same tensors by their names, in the same order."""
        return _ByName(self._by_name)


class _ByName(Mapping[str, TensorInfo]):
    __slots__ = ("_listed",)

    def __init__(self, listed: Mapping[str, schemas.Tensor]) -> None:
        self._listed = listed

    def __getitem__(self, name: str) -> TensorInfo:
        return _to_info(self._listed[name])

    def __contains__(self, name: object) -> bool:
        return name in self._listed

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _to_info(listed: schemas.Tensor) -> TensorInfo:
    return read("tensor", _read_info, listed)


def _read_info(value: schemas.Tensor) -> TensorInfo:
    return TensorInfo(
        name=str(value["name"]),
        dtype=str(value["dtype"]),
        shape=tuple(int(size) for size in value["shape"]),
        byte_offset=int(value["byte_offset"]),
        byte_size=int(value["byte_size"]),
        alias_of=value.get("alias_of"),
        logical=value.get("logical"),
    )
