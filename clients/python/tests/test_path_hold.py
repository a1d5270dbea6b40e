"""A reader that knows nothing of leases finds a region by a path, and the region is in use while that is held."""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest
from harness import Child

import tensord


def _in_use(client: tensord.Client, name: str) -> bool | None:
    return client.get(name).in_use


def _read_by_path(path: str) -> bytes:
    """As an engine does: it opens the path, maps it, and keeps no descriptor of ours."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        return bytes(pages)


def test_a_region_is_in_use_while_its_path_is_held_and_no_longer(client: tensord.Client) -> None:
    with client.create("weights", np.arange(4, dtype=np.uint8), persist=True) as region:
        region.seal()
    assert _in_use(client, "weights") is False
    with tensord.hold("weights") as path:
        assert path == client.get("weights").storage.path
        assert _read_by_path(path).endswith(bytes(range(4)))
        assert _in_use(client, "weights") is True
        assert not client.evict(1 << 30).evicted
    assert _in_use(client, "weights") is False
    client.delete("weights")


@pytest.mark.parametrize("how", [{"storage": "memfd"}, {"private": True}])
def test_a_region_without_a_name_is_held_by_a_path_of_this_process(client: tensord.Client, how: dict[str, Any]) -> None:
    with client.create("weights", np.arange(4, dtype=np.uint8), ttl=600, **how) as region:
        region.seal()
    held = client.hold("weights")
    assert held.path.startswith("/proc/self/fd/")
    assert _read_by_path(held.path).endswith(bytes(range(4)))
    assert _in_use(client, "weights") is True
    held.close()
    held.close()
    assert (held.closed, _in_use(client, "weights")) == (True, False)
    with pytest.raises(tensord.Closed, match="hold it again"):
        _ = held.path


def test_a_hold_that_is_dropped_or_whose_process_dies_ends(client: tensord.Client) -> None:
    with client.create("weights", [1], ttl=600) as region:
        region.seal()
    script = """
import tensord
held = tensord.hold("weights", timeout=60)
say(held.path)
hear()
"""
    with Child(script) as child:
        assert child.hear() == client.get("weights").storage.path
        assert _in_use(client, "weights") is True
        os.kill(child.pid, signal.SIGKILL)
    assert _in_use(client, "weights") is False
    held = client.hold(client.get("weights"))
    assert "weights" in repr(held)
    with pytest.raises(TypeError, match="hold the region in the process"):
        pickle.dumps(held)
    del held
    gc.collect()
    assert _in_use(client, "weights") is False


def test_what_no_file_has_cannot_be_held(client: tensord.Client) -> None:
    with client.create("weights", [1], ttl=600, storage="heap") as region:
        region.seal()
    with pytest.raises(tensord.FeatureUnavailable, match="whose bytes no file has"):
        client.hold("weights")
    with pytest.raises(tensord.RegionNotFound):
        client.hold("nobody")
