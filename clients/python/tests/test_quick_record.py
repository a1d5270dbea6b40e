"""Records of the server's answers are made more quickly than by their class, and are no others."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from tensord._wire.quick_record import maker_of
from tensord._wire.region import Owner, RegionDescriptor, Storage
from tensord._wire.tensors import TensorInfo


def test_a_record_made_quickly_is_the_one_that_its_class_makes() -> None:
    made, usual = maker_of(Storage)("shm", None, None, 1, 2, byte_size=3), Storage("shm", None, None, 1, 2, 3)
    assert type(made) is Storage
    assert made == usual
    assert hash(made) == hash(usual)
    assert repr(made) == repr(usual)
    assert pickle.loads(pickle.dumps(made)) == usual


def test_it_cannot_be_changed() -> None:
    owner = maker_of(Owner)("ttl", ttl_ms=1)
    with pytest.raises(FrozenInstanceError):
        owner.ttl_ms = 2  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        owner.more = 2  # type: ignore[attr-defined]


def test_what_is_not_said_is_what_the_class_has_for_it() -> None:
    info = maker_of(TensorInfo)("w", "F32", (1,), 0, 4)
    assert info == TensorInfo("w", "F32", (1,), 0, 4)
    make: Any = maker_of(RegionDescriptor)
    one, other = (make(*(["x"] * 14)) for _ in range(2))
    assert one.raw == {}
    assert one.raw is not other.raw


def test_a_field_that_is_missing_or_too_many_is_refused() -> None:
    with pytest.raises(TypeError):
        maker_of(Owner)()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        maker_of(Owner)("ttl", no_field=1)  # type: ignore[call-arg]
