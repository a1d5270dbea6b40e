"""The kinds of arguments, each an annotation: ``Seconds`` is ``float`` to a type checker, and to ``checked.py`` seconds
from 0, in whichever type of number. Nothing here knows which call has which.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, SupportsIndex

# Ten years: the longest TTL, and nothing that a system call has trouble with.
MAX_SECONDS = 10 * 365 * 24 * 3600
# What every client's numbers hold exactly; a region can have no more bytes.
MAX_BYTES = (1 << 53) - 1
MAX_DIMENSIONS = 64
STATES = ("creating", "open", "sealing", "sealed", "draining", "deleted")

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
_NUMPY_BOOLS = (("numpy", "bool"), ("numpy", "bool_"))
_VERSION = re.compile(r"[A-Za-z0-9._-]{0,128}")


class Unfit(Exception):
    """A value is of another kind. ``hint`` may say what to pass instead."""

    def __init__(self, hint: str | None = None) -> None:
        super().__init__(hint)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Kind:
    """What is wanted, in words; ``take`` returns the value to go on with, or raises ``Unfit``. A value whose type is
    one of ``plain``, and no kin of it, is what is wanted: ``take`` need not be asked.
    """

    want: str
    take: Callable[[Any], Any]
    plain: frozenset[type] = frozenset()


def name_hint(value: Any) -> str | None:
    """How a name that is refused for its slashes is written."""
    wanted = value.replace("/", "--") if isinstance(value, str) else ""
    return f"write org/name as org--name: {wanted!r}" if wanted != value and _NAME.fullmatch(wanted) else None


def to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit(f"decode it first: {value!r:.80}.decode()" if isinstance(value, bytes) else None)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unfit("it has half a surrogate pair, as names of files may that are no text") from None
    # A str of another type, numpy's or an enum's, is text like any other from here on.
    return str.__str__(value)


def _to_matching(pattern: re.Pattern[str], hint_of: Callable[[Any], str | None] = lambda _: None) -> Callable[..., str]:
    def take(value: Any) -> str:
        text = to_text(value)
        if pattern.fullmatch(text) is None:
            raise Unfit(hint_of(text))
        return text

    return take


def _to_program(value: Any) -> str:
    text = to_text(value)
    if not text or not text.isprintable():
        raise Unfit("it is what lists of sessions call this program")
    return text


def to_flag(value: Any) -> bool:
    # numpy's is no subclass of it, and numpy need not be asked for that.
    if isinstance(value, bool) or (type(value).__module__, type(value).__name__) in _NUMPY_BOOLS:
        return bool(value)
    raise Unfit


def _to_integer(value: Any) -> int:
    if isinstance(value, bool):
        raise Unfit
    try:
        return operator.index(value)
    except TypeError:
        raise Unfit("write int(…) around it" if isinstance(value, float) else None) from None


def _to_count(lowest: int) -> Callable[[Any], int]:
    def take(value: Any) -> int:
        number = _to_integer(value)
        if not lowest <= number <= MAX_BYTES:
            raise Unfit
        return number

    return take


def _to_number(value: Any) -> float:
    if type(value) is int and value >= 0:
        # As nearly all are; to ask an abstract class takes as long as all the rest of it.
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise Unfit("pass .total_seconds() of it" if type(value).__name__ == "timedelta" else None)
    try:
        # Whole numbers stay what they are, however large.
        number = operator.index(value) if isinstance(value, numbers.Integral) else float(value)
    except OverflowError:
        raise Unfit from None
    # NaN is not at least 0 either.
    if not number >= 0:
        raise Unfit
    return number


def _to_seconds(value: Any) -> float:
    number = _to_number(value)
    if number > MAX_SECONDS:
        raise Unfit("persist=True keeps a region without an end")
    return number


def _to_timeout(value: Any) -> float:
    number = _to_number(value)
    return number if number == math.inf else min(number, MAX_SECONDS)


def to_sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes, bytearray, set, frozenset, Mapping)):
        raise Unfit
    try:
        sizes = tuple(map(_to_integer, islice(value, MAX_DIMENSIONS + 1))) if isinstance(value, Iterable) else None
    except TypeError:
        # An array of no dimensions says that it is iterable.
        sizes = None
    if sizes is None:
        sizes = (_to_integer(value),)
    if len(sizes) > MAX_DIMENSIONS or not all(0 <= size <= MAX_BYTES for size in sizes):
        raise Unfit
    return sizes


def _to_texts(values: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def take(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Unfit
        return {to_text(key): values(text) for key, text in value.items()}

    return take


def _of_torch(value: Any) -> Any:
    """torch's word for a device is its text."""
    return str(value) if (type(value).__module__, type(value).__name__) == ("torch", "device") else value


def _to_pair(value: Any) -> tuple[str, str]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise Unfit("write label=(key, value)")
    return to_text(value[0]), to_text(value[1])


def _to_prefixes(value: Any) -> str:
    if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
        return to_text(value)
    return ",".join(map(to_text, value))


def _to_mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise Unfit
    return value


def _or_none(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else take(value)


_NAME_WANT = "text of 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', not beginning with '.'"


def _to_path(value: Any) -> str:
    path = to_text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if path == "" or "\0" in path:
        raise Unfit
    return path


def _to_packed(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise Unfit("what JSON carries is a TensorReference: client.open takes that")
    if memoryview(value).nbytes != 128:
        raise Unfit
    return bytes(value)


NAME_KIND = Kind(_NAME_WANT, _to_matching(_NAME, name_hint))


def _to_word(words: tuple[str, ...]) -> Callable[[Any], str]:
    def take(value: Any) -> str:
        text = to_text(value)
        if text not in words:
            raise Unfit
        return text

    return take


def word_kind(words: tuple[str, ...]) -> Kind:
    """One of some words."""
    return Kind(" or ".join(map(repr, words)), _to_word(words))


Text = Annotated[str, Kind("text", to_text)]
# What put, publish and lend of a ring give with packed=True.
PackedReference = Annotated[bytes, Kind("the 128 bytes of a packed reference", _to_packed)]
FilePath = Annotated[str | os.PathLike[str], Kind("a path, or a file:// or s3:// URI", _to_path)]
# A region's or a model's.
Name = Annotated[str, NAME_KIND]
Version = Annotated[str, Kind("text of at most 128 of A-Z, a-z, 0-9, '.', '_' and '-'", _to_matching(_VERSION))]
ProgramName = Annotated[str, Kind("text without control characters", _to_program)]
Seconds = Annotated[float, Kind(f"seconds, from 0 to {MAX_SECONDS} (10 years)", _to_seconds)]
# How long to wait.
Timeout = Annotated[float, Kind("seconds, 0 or more, or math.inf", _to_timeout)]
Revision = Annotated[int, Kind(f"a revision, a whole number from 0 to {MAX_BYTES}", _to_count(0))]
DeviceName = Annotated[str, Kind('a device, "cuda:0" or such, or its UUID', lambda value: to_text(_of_torch(value)))]
ByteCount = Annotated[int, Kind(f"a whole number of bytes, from 0 to {MAX_BYTES}", _to_count(0))]
Count = Annotated[int, Kind("a whole number, 1 or more", _to_count(1))]
State = Annotated[str, word_kind(STATES)]
SHAPE_KIND = Kind(f"a size, or at most {MAX_DIMENSIONS} of them in order, each from 0 to {MAX_BYTES}", to_sizes)
Shape = Annotated[SupportsIndex | Iterable[SupportsIndex], SHAPE_KIND]
Labels = Annotated[Mapping[str, str], Kind("a mapping of text to text", _to_texts(to_text))]
LabelChanges = Annotated[
    Mapping[str, str | None], Kind("a mapping of text to text, or to None", _to_texts(_or_none(to_text)))
]
# By pool: "host", or a device's UUID.
PoolLimits = Annotated[
    Mapping[str, int | None],
    Kind("a mapping of pools to whole numbers of bytes, or to None", _to_texts(_or_none(_to_count(0)))),
]
Label = Annotated[tuple[str, str], Kind("a pair of texts, key and value", _to_pair)]
Prefixes = Annotated[str | Iterable[str], Kind("text, or several texts", _to_prefixes)]
# Names to (dtype, shape); what is in them is read, and refused by name, where they become requests.
TensorSpecs = Annotated[Mapping[str, tuple[Any, Any]], Kind("a mapping of names to (dtype, shape)", _to_mapping)]
