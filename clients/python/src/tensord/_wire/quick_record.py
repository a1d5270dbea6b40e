"""Frozen records, made as quickly as others: the server's answers are read on the way of every call, and ``dataclass``
has a frozen one set its fields by a call each, which takes five times as long.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

Record = TypeVar("Record")


def maker_of(record: type[Record]) -> type[Record]:
    """What makes a ``record``, a frozen dataclass with slots and no ``__post_init__``, from the same arguments: a twin
    that is not frozen, and becomes a ``record`` as soon as it has its fields.
    """
    assert not hasattr(record, "__post_init__"), f"{record} checks what it is made of"
    members: dict[str, Any] = {"__annotations__": {}, "__post_init__": lambda made: setattr(made, "__class__", record)}
    for each in dataclasses.fields(record):  # type: ignore[arg-type]
        members["__annotations__"][each.name] = each.type
        if each.default_factory is not dataclasses.MISSING:
            members[each.name] = dataclasses.field(default_factory=each.default_factory)
        elif each.default is not dataclasses.MISSING:
            members[each.name] = each.default
    return dataclasses.dataclass(slots=True, eq=False, repr=False)(type(record.__name__, (), members))
