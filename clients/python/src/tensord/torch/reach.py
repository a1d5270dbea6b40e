"""What a module holds in memory, and where: tensors in containers, objects and closures, and what torch has packed."""

from __future__ import annotations

import contextlib
import types
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tensord._tensor.dtype import import_torch

from .wrappers import is_wrapper, parts_of

if TYPE_CHECKING:
    from torch import Tensor

_MAPPINGS = (dict, types.MappingProxyType)
_SEQUENCES = (list, tuple, set, frozenset, deque)
# What leads out of the module, into the program.
_OUTSIDE = (type, types.ModuleType, types.CodeType, types.FrameType, str, bytes, int, float, complex)


def find_tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that is reached from ``root``, once, and how: ``layers.0.cache[1]``. Those that are made of others
    are not among them, but these are; nor is what torch has packed: ``find_packed``.
    """
    torch = import_torch()
    for path, value in _walk(root):
        if isinstance(value, torch.Tensor) and not is_wrapper(value):
            yield path, value


def find_packed(root: Any) -> Iterator[tuple[str, int]]:
    """Every object of torch's that keeps weights outside of tensors, as quantised layers do, and the bytes of the
    elements in it.
    """
    torch = import_torch()
    for path, value in _walk(root):
        if isinstance(value, torch.ScriptObject):
            # Of others than those that can be pickled nobody knows what they hold.
            with contextlib.suppress(Exception):
                byte_size = sum(tensor.nbytes for _, tensor in find_tensors(value.__getstate__()))
                if byte_size > 0:
                    yield path, byte_size


def storage_of(tensor: Tensor) -> tuple[int, int] | None:
    """Where a tensor of the CPU keeps its elements, and those that it is a view of: address and bytes. None of those
    that have no such place, as of another layout, or on meta.
    """
    try:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
    except (RuntimeError, NotImplementedError):
        return None
    return (address, storage.nbytes()) if address != 0 and tensor.device.type == "cpu" else None


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    # Kept while it runs: an object that is made while it is asked for must not leave its id to the next one.
    kept: list[Any] = []
    rest: list[tuple[str, Any]] = [("", root)]
    while rest:
        path, value = rest.pop()
        if value is None or isinstance(value, _OUTSIDE) or id(value) in seen:
            continue
        seen.add(id(value))
        kept.append(value)
        yield path.removeprefix("."), value
        rest.extend(reversed(list(_members(path, value))))


def _members(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _MAPPINGS):
        # Of large ones, such as vocabularies, not a path for each text.
        yield from ((f"{path}[{key!r:.40}]", each) for key, each in value.items() if not isinstance(each, _OUTSIDE))
    elif isinstance(value, _SEQUENCES):
        yield from ((f"{path}[{index}]", each) for index, each in enumerate(value) if not isinstance(each, _OUTSIDE))
    elif isinstance(value, import_torch().Tensor):
        if value.is_leaf:
            yield f"{path}.grad", value.grad
        if is_wrapper(value):
            # They need not be attributes that lie in it.
            yield from ((path + part, tensor) for part, tensor in parts_of(value).items())
    elif isinstance(value, partial):
        yield from ((f"{path}()", member) for member in (value.func, value.args, value.keywords))
    elif isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from ((f"{path}()", member) for member in (value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            # One that is not filled yet has no content.
            with contextlib.suppress(ValueError):
                yield f"{path}()", cell.cell_contents
    yield from _attributes(path, value)


def _attributes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    attributes: Mapping[str, Any] = getattr(value, "__dict__", {})
    for name, member in attributes.items():
        # A module's own registers of what are its attributes to everybody else.
        if name in ("_parameters", "_buffers", "_modules") and isinstance(member, (dict, OrderedDict)):
            yield from ((f"{path}.{key}", each) for key, each in member.items())
        else:
            yield f"{path}.{name}", member
    for kind in type(value).__mro__:
        for name in _slots_of(kind):
            with contextlib.suppress(AttributeError):
                yield f"{path}.{name}", object.__getattribute__(value, name)


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
