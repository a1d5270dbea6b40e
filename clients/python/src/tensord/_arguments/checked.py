"""Holds public calls to their annotations, before anything else sees what was passed. A parameter whose annotation says
no kind fails at import.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from tensord._errors import ValidationFailed

from .kinds import Kind, Timeout, Unfit, to_flag, word_kind
from .quoting import quote

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

_FLAG = Kind("True or False", to_flag, frozenset({bool}))
_ANY = Kind("anything", lambda value: value)
_checking: set[Callable[..., Any]] = set()


def checked_class(kind: Class) -> Class:
    """Holds every public method of a class to its annotations."""
    for name, member in list(vars(kind).items()):
        if isinstance(member, types.FunctionType) and not name.startswith("_") and member not in _checking:
            setattr(kind, name, checked(member))
    return kind


def checks_itself(call: Function) -> Function:
    """Marks a method of a ``checked_class`` that looks at its arguments by itself: one that is called so often that the
    call in between would show.
    """
    _checking.add(call)
    return call


def check_timeout(call: str, value: Any) -> float | None:
    """``value`` as the ``timeout`` of a method that checks itself. Raises ``ValidationFailed``."""
    timeout: float | None = check(call, "timeout", _TIMEOUT, value)
    return timeout


def checked(call: Function) -> Function:
    """Holds each call of a function to its annotations. Raises ``ValidationFailed``, with the value quoted."""
    parameters = list(inspect.signature(call).parameters.values())
    kinds = {
        parameter.name: _kind_of(_annotation_of(cast("types.FunctionType", call), parameter))
        for parameter in parameters
        if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }
    if all(kind is _ANY for kind in kinds.values()):
        return call
    name = call.__qualname__
    order = [(parameter.name, kinds.get(parameter.name, _ANY)) for parameter in parameters]
    # Up to there nothing is looked at: a call that is made all the time is not to pay for what it does not say.
    unchecked = next((index for index, (_, kind) in enumerate(order) if kind is not _ANY), len(order))

    first = order[unchecked][1].plain if unchecked < len(order) else frozenset()

    @functools.wraps(call)
    def checked_call(*arguments: Any, **options: Any) -> Any:
        if not options:
            count = len(arguments)
            if count <= unchecked or (count == unchecked + 1 and type(arguments[unchecked]) in first):
                return call(*arguments)
        # What is too many, or has a name that the function does not know, Python itself refuses.
        given = [
            value if type(value) in kind.plain else check(name, what, kind, value)
            for (what, kind), value in zip(order, arguments, strict=False)
        ]
        for what, value in options.items():
            kind = kinds.get(what, _ANY)
            if type(value) not in kind.plain:
                options[what] = check(name, what, kind, value)
        return call(*given, *arguments[len(given) :], **options)

    return cast("Function", checked_call)


def check(call: str, what: str, kind: Kind, value: Any) -> Any:
    """The value to go on with. Raises ``ValidationFailed``, which says what was called with what, and what it wants."""
    try:
        return kind.take(value)
    except Unfit as unfit:
        raise ValidationFailed(
            f"Cannot call {call}: {what} is {quote(value)}, want {kind.want}", hint=unfit.hint
        ) from None


def _annotation_of(call: types.FunctionType, parameter: inspect.Parameter) -> Any:
    return eval(parameter.annotation, call.__globals__)


def _kind_of(annotation: Any) -> Kind:
    """The kind that an annotation says. An ``assert`` fails where it says none: at import, whatever is called."""
    if get_origin(annotation) is Annotated:
        (kind,) = annotation.__metadata__
        assert isinstance(kind, Kind)
        return kind
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        return _one_of(
            [_kind_of(member) for member in members], tuple(member for member in members if isinstance(member, type))
        )
    if get_origin(annotation) in (list, tuple, Sequence):
        return _several(_kind_of(get_args(annotation)[0]))
    if get_origin(annotation) is Literal:
        return word_kind(get_args(annotation))
    if annotation is type(None):
        return Kind("None", _to_instance(annotation), frozenset({annotation}))
    if get_origin(annotation) is Callable or annotation is Callable:
        return Kind("a function", _to_function)
    if annotation is Any:
        return _ANY
    if annotation is bool:
        return _FLAG
    assert isinstance(annotation, type), f"{annotation} says no kind"
    assert annotation not in (str, int, float, bytes), f"{annotation} says no kind: see what _arguments.py has"
    return Kind(f"a tensord.{annotation.__name__}", _to_instance(annotation), frozenset({annotation}))


def _one_of(kinds: list[Kind], classes: tuple[type, ...]) -> Kind:
    """``classes`` are those of the kinds that are nothing but a class."""

    def take(value: Any) -> Any:
        if isinstance(value, classes):
            return value
        hint = None
        for kind in kinds:
            try:
                return kind.take(value)
            except Unfit as unfit:
                hint = hint or unfit.hint
        raise Unfit(hint)

    return Kind(", or ".join(kind.want for kind in kinds), take, frozenset().union(*(kind.plain for kind in kinds)))


def _several(kind: Kind) -> Kind:
    def take(value: Any) -> tuple[Any, ...]:
        # Text is a sequence of texts, and a region one of its tensors' names; who passes one of either means that one.
        if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Sequence):
            raise Unfit("write [one] for one")
        return tuple(map(kind.take, value))

    return Kind(f"a list, each {kind.want}", take)


def _to_instance(kind: type) -> Callable[[Any], Any]:
    def take(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Unfit
        return value

    return take


def _to_function(value: Any) -> Any:
    if not callable(value):
        raise Unfit("pass the function, not what it returns")
    return value


_TIMEOUT = _kind_of(Timeout | None)
