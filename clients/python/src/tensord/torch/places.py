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
from .wrappers import is_distributed, is_wrapper, kind_of, parts_of, put_together

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


def tensors_of(module: Module) -> dict[str, Tensor]:
    """The plain tensors of a module by name: in the place of one that is made of others there are these, by its name
    and theirs, as ``layers.0.weight.qdata``.
    """
    return {
        name + path: part for name, place in places_of(module).items() for path, part in parts_of(place.tensor).items()
    }


def kinds_of(module: Module) -> dict[str, str]:
    """Of the module's tensors that are made of others what they are beside that, by name."""
    return {name: kind_of(place.tensor) for name, place in places_of(module).items() if is_wrapper(place.tensor)}


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
            hint="quantise with torchao in build, by quantize_(module, Int8DynamicActivationInt8WeightConfig()): its "
            "weights are tensors, which are shared; or share the module before quantize_dynamic, and quantise it in "
            "each worker: what is packed is each worker's own then, and all else shared",
        )
    distributed = [each for each, place in places_of(module).items() if is_distributed(place.tensor)]
    if distributed:
        raise ValidationFailed(
            f"Cannot share module {name!r}: each rank has another part of {_shorten(distributed)}",
            hint="share the module before it is distributed",
        )


def fill(name: str, module: Module, shared: Mapping[str, Tensor], kinds: Mapping[str, str]) -> None:
    """Puts ``shared`` into the places of the same names; nothing is copied. What was one parameter under two names is
    one again, and what was made of others is made of them again. ``kinds`` are those of the module that was built.

    Raises ``ValidationFailed`` if names, shapes or dtypes are not the same, and if something in the module still holds
    what was replaced, or is on meta: the module is of no use then.
    """
    places = places_of(module)
    _check_alike(name, module, shared, kinds)
    filled: dict[int, tuple[str, Tensor]] = {}
    for tensor_name, place in places.items():
        parts = {path: shared[tensor_name + path] for path in parts_of(place.tensor)}
        first = filled.get(id(place.tensor))
        if first is None:
            first = filled[id(place.tensor)] = tensor_name, _like(place.tensor, put_together(place.tensor, parts))
            _check_there(name, tensor_name, first[1])
        elif any(shared[first[0] + path].data_ptr() != part.data_ptr() for path, part in parts.items()):
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
    # What others have noted on it, as optimizers and parallel layers do; what it is made of is attributes as well.
    new.__dict__.update({key: noted for key, noted in old.__dict__.items() if key not in new.__dict__})
    return new


def _check_there(name: str, tensor_name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        raise ValidationFailed(
            f"Cannot fill module {name!r}: {tensor_name!r}, a {type(tensor).__name__}, says itself that it is on meta",
            hint="pass build_empty=, which makes the module as build does, and not on meta",
        )


def _check_alike(name: str, module: Module, shared: Mapping[str, Tensor], kinds: Mapping[str, str]) -> None:
    places = tensors_of(module)
    problems = [
        f"{what} {_shorten(names)}"
        for what, names in (
            ("it has in addition", [each for each in places if each not in shared]),
            ("it lacks", [each for each in shared if each not in places]),
        )
        if names
    ]
    for each, tensor in places.items():
        want = shared.get(each)
        if want is not None and (want.dtype, want.shape) != (tensor.dtype, tensor.shape):
            problems.append(f"{each!r} is {_shown(tensor)} in it, was built as {_shown(want)}")
    problems += [
        f"{each!r} is {kind} in it, was built as {kinds[each]}"
        for each, kind in kinds_of(module).items()
        if kinds.get(each, kind) != kind
    ]
    if problems:
        raise ValidationFailed(
            f"Cannot fill module {name!r}: it is not like the one that was built: {'; '.join(problems[:SHOWN])}",
            hint="build_empty must make the module that build makes, of the same configuration and dtypes; what "
            "changes it belongs into the fingerprint",
        )


def _check_nothing_left(name: str, module: Module, places: Mapping[str, Place]) -> None:
    replaced = {storage_of(part) for place in places.values() for part in parts_of(place.tensor).values()} - {None}
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
