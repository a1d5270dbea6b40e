"""A region's tensors as the server listed them. There may be 100,000, of which most callers want a few: a record is
made of each when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, overload

from .quick_record import maker_of
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


make_info = maker_of(TensorInfo)
"""A ``TensorInfo`` from the same arguments, in less time."""


TensorRow = tuple[str, str, Sequence[int], int, int]
"""What makes a tensor of bytes: name, dtype, shape, ``byte_offset`` and ``byte_size``, as in ``TensorInfo``. For who
makes all of them at once: a tuple takes a tenth of what a record does.
"""


class TensorInfos(Sequence[TensorInfo]):
    """The tensors in the region's order. It equals a tuple of the same ones."""

    __slots__ = ("_by_name", "_listed")

    def __init__(self, listed: list[schemas.Tensor]) -> None:
        self._listed = listed
        self._by_name = TensorsByName({tensor["name"]: tensor for tensor in listed})

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
    def by_name(self) -> TensorsByName:
        """The same tensors by their names, in the same order."""
        return self._by_name


class TensorsByName(Mapping[str, TensorInfo]):
    """Tensors by their names, in the region's order."""

    __slots__ = ("_listed",)

    def __init__(self, listed: Mapping[str, schemas.Tensor]) -> None:
        self._listed = listed

    def rows(self) -> list[TensorRow]:
        """All of them as rows, in the same order. Raises ``ServerFault``."""
        return read("tensors", _to_rows, self._listed)

    def aliases(self) -> dict[str, str]:
        """Those whose bytes are those of another of them, by name, with that one's. Raises ``ServerFault``."""
        return read("tensors", _to_aliases, self._listed)

    def __getitem__(self, name: str) -> TensorInfo:
        return _to_info(self._listed[name])

    def __contains__(self, name: object) -> bool:
        return name in self._listed

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def to_row(info: TensorInfo) -> TensorRow:
    """A record as a row."""
    return info.name, info.dtype, info.shape, info.byte_offset, info.byte_size


_ROW_KINDS: tuple[type, ...] = (str, str, list, int, int)
_to_row = itemgetter("name", "dtype", "shape", "byte_offset", "byte_size")


def _to_rows(listed: Mapping[str, schemas.Tensor]) -> list[TensorRow]:
    rows = list(map(_to_row, listed.values()))
    # By columns, of which each is gone through in C.
    for column, kind in zip(zip(*rows, strict=True), _ROW_KINDS, strict=False):
        if not set(map(type, column)) <= {kind}:
            raise TypeError(f"want {kind.__name__}")
        if kind is list and not set(map(type, chain.from_iterable(column))) <= {int}:
            raise TypeError("want int")
    return rows


def _to_aliases(listed: Mapping[str, schemas.Tensor]) -> dict[str, str]:
    return {
        name: target
        for name, tensor in listed.items()
        if (target := tensor.get("alias_of")) is not None and target in listed
    }


def _to_info(listed: schemas.Tensor) -> TensorInfo:
    return read("tensor", _read_info, listed)


def _read_info(value: schemas.Tensor) -> TensorInfo:
    return make_info(
        name=str(value["name"]),
        dtype=str(value["dtype"]),
        shape=tuple(int(size) for size in value["shape"]),
        byte_offset=int(value["byte_offset"]),
        byte_size=int(value["byte_size"]),
        alias_of=value.get("alias_of"),
        logical=value.get("logical"),
    )
