"""What is taken from a region: how long it lives, when it is a copy, and what cannot be done with it."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import Server, wait_for

import tensord
from tensord._mapping import lease


def test_views_outlive_the_region_and_the_client(server: Server) -> None:
    client = server.connect()
    region = client.create("views", {"a": np.arange(1000.0), "b": [1, 2]}, ttl=600)
    region.seal()
    path = region.descriptor.storage.path
    array, part, raw = region["a"].numpy(), region["a"].numpy()[10:20][::2], region["b"].bytes()
    tensor = region["a"]
    region.close()
    region.close()
    client.close()
    assert array.sum() == 499_500
    assert part.tolist() == [10, 12, 14, 16, 18]
    assert raw.tolist()[0] == 1
    assert lease.is_leased(path)
    del array, raw
    assert lease.is_leased(path)
    del part
    assert not lease.is_leased(path)
    for call in (
        region.seal,
        tensor.numpy,
        tensor.torch,
        tensor.bytes,
        tensor.ref,
        region["a"].numpy,
        region.state_dict,
    ):
        with pytest.raises(tensord.Closed):
            call()
    assert "closed" in repr(region)


def test_a_region_needs_no_close(server: Server, client: tensord.Client) -> None:
    path = client.create("dropped", [1], ttl=600).descriptor.storage.path
    gc.collect()
    assert not lease.is_leased(path)


def test_numpy_protocols_copy_only_when_they_must(client: tensord.Client) -> None:
    with client.create("array", np.arange(4, dtype=np.int32), ttl=600) as region:
        tensor = region["data"]
        for thing in (region, tensor):
            assert np.shares_memory(np.asarray(thing), region.numpy())
            assert not np.shares_memory(np.array(thing), region.numpy())
            assert not np.shares_memory(np.asarray(thing, dtype=np.float64), region.numpy())
            assert np.shares_memory(np.asarray(thing, dtype=np.int32, copy=False), region.numpy())
            with pytest.raises(ValueError, match="without a copy"):
                np.asarray(thing, dtype=np.float64, copy=False)
        assert (np.asarray(region) + tensor).tolist() == [0, 2, 4, 6]


def test_mapped_things_are_neither_copied_nor_pickled(client: tensord.Client) -> None:
    with client.create("x", [1], ttl=600) as region:
        for thing in (region, region["data"], client):
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be pickled or copied"):
                    attempt(thing)


def test_strict_regions_are_read_only_to_the_processor(client: tensord.Client) -> None:
    with client.create("strict", [1, 2], ttl=600) as region, client.attach("strict", strict=True) as strict:
        region.numpy()[0] = 5
        assert strict.numpy().tolist() == [5, 2]
        with pytest.raises(tensord.FeatureUnavailable, match="strict=True"):
            strict.torch()
        path = strict.descriptor.storage.path
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if path in line]
        assert sorted(line[1] for line in lines) == ["r--s", "rw-s"]


@pytest.fixture
def no_descriptor_leak() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    # Threads of others open and close what they need.
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, "nothing of it is open")


@pytest.mark.usefixtures("no_descriptor_leak")
def test_no_descriptor_is_left_open(server: Server) -> None:
    with server.connect() as client:
        regions = [client.create(f"r{number}", [number], ttl=600) for number in range(20)]
        with contextlib.suppress(tensord.RegionNotFound):
            client.attach("absent")
        for region in regions:
            region.close()
