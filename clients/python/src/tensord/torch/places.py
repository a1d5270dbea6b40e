"""Where a module keeps its tensors: parameters, buffers and plain attributes of it and of its submodules, by name; and
other tensors put in their places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensord._errors import ValidationFailed
from tensord._tensor.dtype import import_torch

from .reach import find_packed, find_tensors, storage_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

SHOWN = 4


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor of a module: ``owner.key`` is ``tensor``."""

    owner: Module
    key: str
    tensor: Tensor


def places_of(module: Module) -> dict[str, Place]:
    """The places by the names that ``state_dict`` has for them, with those beside that it leaves out: buffers that are
    not persistent, and tensors that are attributes and nothing else. Tied ones are there under each of their names.
    """
    torch = import_torch()
    places: dict[str, Place] = {}
    for path, owner in module.named_modules():
        prefix = f"{path}." if path else ""
        for held in (owner._parameters, owner._buffers, vars(owner)):
            for key, tensor in held.items():
                if isinstance(tensor, torch.Tensor):
                    places[prefix + key] = Place(owner, key, tensor)
    return places


def check_shareable(name: str, module: Any) -> None:
    """Raises ``ValidationFailed`` for what is no module, or one that has weights which are in no tensor."""
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise ValidationFailed(
            f"Cannot share module {name!r}: it is of type {type(module).__name__}, want a torch.nn.Module",
            hint="return the module from build; for tensors without one use get_or_create",
        )
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ValidationFailed(
                f"Cannot share module {name!r}: {path or 'it'} is a ScriptModule, whose tensors are its engine's",
                hint="share the module that it was made of",
            )
    packed = list(find_packed(module))
    if packed:
        raise ValidationFailed(
            f"Cannot share module {name!r}: torch has packed the weights of {_shorten([path for path, _ in packed])} "
            f"({sum(size for _, size in packed)} bytes), and gives no tensor that shows them",
            hint="share the module before quantize_dynamic, and quantise it in each worker: what is packed is each "
            "worker's own then, and all else shared; or quantise by tensors, as torchao does",
        )


def fill(name: str, module: Module, shared: Mapping[str, Tensor]) -> None:
    """Puts ``shared`` into the places of the same names; nothing is copied. What was one parameter under two names is
    one again.

    Raises ``ValidationFailed`` if names, shapes or dtypes are not the same, and if something in the module still holds
    what was replaced, or is on meta: the module is of no use then.
    """
    places = places_of(module)
    _check_alike(name, places, shared)
    filled: dict[int, tuple[str, Tensor]] = {}
    for tensor_name, place in places.items():
        tensor = shared[tensor_name]
        first = filled.get(id(place.tensor))
        if first is None:
            first = filled[id(place.tensor)] = tensor_name, _like(place.tensor, tensor)
        elif shared[first[0]].data_ptr() != tensor.data_ptr():
            raise ValidationFailed(
                f"Cannot fill module {name!r}: {first[0]!r} and {tensor_name!r} are one tensor in it, and two in the "
                "one that was built",
                hint="build_empty must tie what build ties",
            )
        # As load_state_dict does it: some modules keep lists of their parameters by it.
        setattr(place.owner, place.key, first[1])
    _check_nothing_left(name, module, places)


def _like(old: Tensor, new: Tensor) -> Tensor:
    torch = import_torch()
    if isinstance(old, torch.nn.Parameter):
        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
    # What others have noted on it, as optimizers and parallel layers do.
    new.__dict__.update(old.__dict__)
    return new


def _check_alike(name: str, places: Mapping[str, Place], shared: Mapping[str, Tensor]) -> None:
    problems = [
        f"{what} {_shorten(names)}"
        for what, names in (
            ("it has in addition", [each for each in places if each not in shared]),
            ("it lacks", [each for each in shared if each not in places]),
        )
        if names
    ]
    for each, place in places.items():
        want = shared.get(each)
        if want is not None and (want.dtype, want.shape) != (place.tensor.dtype, place.tensor.shape):
            problems.append(f"{each!r} is {_shown(place.tensor)} in it, was built as {_shown(want)}")
    if problems:
        raise ValidationFailed(
            f"Cannot fill module {name!r}: it is not like the one that was built: {'; '.join(problems[:SHOWN])}",
            hint="build_empty must make the module that build makes, of the same configuration and dtypes; what "
            "changes it belongs into the fingerprint",
        )


def _check_nothing_left(name: str, module: Module, places: Mapping[str, Place]) -> None:
    replaced = {storage_of(place.tensor) for place in places.values()} - {None}
    left = [
        f"{path!r} is {'on meta' if tensor.is_meta else 'memory of a tensor that was replaced'}"
        for path, tensor in find_tensors(module)
        if tensor.is_meta or storage_of(tensor) in replaced
    ]
    if left:
        raise ValidationFailed(
            f"Cannot fill module {name!r}: tensors that are no parameter, buffer or attribute of a module are left: "
            f"{'; '.join(left[:SHOWN])}",
            hint="make them buffers, as by register_buffer(…, persistent=False)",
        )


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
