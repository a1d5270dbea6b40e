"""Thousands of objects are made without a look at all others meanwhile, and whatever happens the collector goes on."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensord
from tensord._collector import MANY, make_uncollected
from tensord._transport.connection import Answer
from tensord._transport.transport import _parse_body

torch = pytest.importorskip("torch", reason="torch is an extra")


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that were collected since, each as it begins."""
    begun: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            begun.append(info["generation"])

    gc.callbacks.append(note)
    try:
        yield begun
    finally:
        gc.callbacks.remove(note)


def test_few_objects_are_collected_as_ever_and_many_are_not(collections: list[int]) -> None:
    gc.collect()
    collections.clear()
    kept = make_uncollected(MANY - 1, lambda: [[] for _ in range(20_000)])
    assert collections
    gc.collect()
    collections.clear()
    kept = make_uncollected(MANY, lambda: [[] for _ in range(20_000)])
    # What was made is looked at afterwards.
    assert gc.isenabled()
    assert 2 not in collections
    assert len(collections) <= 1
    assert len(kept) == 20_000


def test_the_collector_is_on_again_after_a_failure_and_off_where_it_was_off() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise KeyError("w")

    with pytest.raises(KeyError):
        make_uncollected(MANY, fail)
    assert gc.isenabled()
    gc.disable()
    try:
        assert make_uncollected(MANY, gc.isenabled) is False
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_child_that_is_forked_meanwhile_collects() -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if gc.isenabled() else 1)
        return os.waitpid(pid, 0)[1]

    assert make_uncollected(MANY, fork) == 0
    assert gc.isenabled()


def test_an_answer_with_many_tensors_is_read_without_a_collection(collections: list[int]) -> None:
    listed = [{"name": f"w{i}", "shape": [i], "byte_offset": i, "more": "x" * 80} for i in range(MANY)]
    answer = Answer(200, "application/json", json.dumps(listed).encode())
    gc.collect()
    collections.clear()
    read = _parse_body(answer)
    assert len(collections) <= 1
    assert read == listed


def test_a_state_dict_of_many_tensors_is_made_without_a_collection(
    client: tensord.Client, collections: list[int]
) -> None:
    arrays: dict[str, Any] = {f"w{i}": np.zeros(1, np.uint8) for i in range(MANY // 2)}
    with client.create("many", arrays, ttl=600) as region:
        gc.collect()
        collections.clear()
        state = region.state_dict()
        assert len(collections) <= 1
        assert len(state) == MANY // 2
    assert gc.isenabled()
