"""Readers that know nothing of tensord open a region's file, and cannot take it away."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Child, wait_for

import tensord


def test_safetensors_opens_an_open_region_and_sees_writes(client: tensord.Client) -> None:
    safetensors = pytest.importorskip("safetensors", reason="safetensors is a test extra")
    pytest.importorskip("torch", reason="torch is an extra")
    data: dict[str, Any] = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "none": np.zeros((0, 2)),
        "s": np.array(5, np.int64),
    }
    with client.create("stock", data, ttl=600) as region:
        with safetensors.safe_open(region.descriptor.storage.path, framework="pt") as file:
            assert sorted(file.keys()) == ["none", "s", "w"]
            assert file.metadata()["tensord.region"] == region.id
            # As transformers 4 wants it of a model file that has metadata at all.
            assert file.metadata()["format"] == "pt"
            tensor = file.get_tensor("w")
            assert tensor.tolist() == data["w"].tolist()
            region["w"].numpy()[1, 2] = 77
            assert tensor[1, 2] == 77
            assert file.get_tensor("s").item() == 5


def test_safetensors_opens_a_region_with_aliases_and_finds_them_in_the_metadata(client: tensord.Client) -> None:
    safetensors = pytest.importorskip("safetensors", reason="safetensors is a test extra")
    pytest.importorskip("torch", reason="torch is an extra")
    flat = np.arange(6, dtype=np.float32)
    with client.create("stock", {"head": flat.reshape(2, 3), "w": flat, "row": flat[3:]}, ttl=600) as region:
        with safetensors.safe_open(region.descriptor.storage.path, framework="pt") as file:
            assert file.keys() == ["head"]
            assert file.get_tensor("head").tolist() == [[0, 1, 2], [3, 4, 5]]
            aliases = json.loads(file.metadata()["tensord.aliases"])
    assert aliases == {
        "w": {"dtype": "F32", "shape": [6], "alias_of": "head", "alias_byte_offset": 0},
        "row": {"dtype": "F32", "shape": [3], "alias_of": "head", "alias_byte_offset": 12},
    }


def test_shared_memory_of_the_standard_library_opens_a_region(client: tensord.Client) -> None:
    script = """
from multiprocessing.shared_memory import SharedMemory
name, offset, size = hear()
reader = SharedMemory(name=name)
say(bytes(reader.buf[offset:offset + size]).hex())
reader.buf[offset] = 9
reader.close()
"""
    # The child's resource tracker unlinks the file when the child ends, and warns about it. That is the point.
    with client.create("stock", np.array([1, 2, 3], np.uint8), ttl=600) as region:
        storage, tensor = region.descriptor.storage, region["data"]
        assert storage.shm_name is not None
        inode = os.stat(storage.path).st_ino
        with Child(script) as child:
            child.say([storage.shm_name.lstrip("/"), tensor.byte_offset, tensor.byte_size])
            assert child.hear() == "010203"
            child.finish()
        assert region.numpy().tolist() == [9, 2, 3]
        wait_for(lambda: Path(storage.path).exists(), "the server has brought the name back")
        assert os.stat(storage.path).st_ino == inode
        with client.attach("stock") as attached:
            assert attached.numpy().tolist() == [9, 2, 3]


def test_a_region_survives_a_reader_that_unlinks_it(client: tensord.Client) -> None:
    with client.create("stock", [1, 2, 3], ttl=600) as region:
        path = region.descriptor.storage.path
        for _ in range(20):
            os.unlink(path)
            with client.attach("stock") as attached:
                assert attached.numpy().tolist() == [1, 2, 3]
            wait_for(lambda: Path(path).exists(), "the server has brought the name back")


def test_a_descriptor_in_hand_finds_a_region_whose_name_was_unlinked(client: tensord.Client) -> None:
    with client.create("stock", [1, 2, 3], ttl=600):
        descriptor = client.get("stock")
        for _ in range(20):
            os.unlink(descriptor.storage.path)
            with client.attach(descriptor) as attached:
                assert attached.numpy().tolist() == [1, 2, 3]


def test_a_stock_writable_seal_lets_the_standard_library_in(client: tensord.Client) -> None:
    from multiprocessing.shared_memory import SharedMemory

    with client.create("stock", [7], ttl=600) as region:
        region.seal(stock_writable=True)
        storage = region.descriptor.storage
        assert os.stat(storage.path).st_mode & 0o7777 == 0o1760
        with pytest.raises(tensord.RegionSealed):
            client.attach("stock", writable=True)
        script = """
from multiprocessing import resource_tracker, shared_memory
reader = shared_memory.SharedMemory(name=hear())
resource_tracker.unregister(reader._name, "shared_memory")
say(reader.size)
reader.close()
"""
        assert SharedMemory is not None
        with Child(script) as child:
            assert storage.shm_name is not None
            child.say(storage.shm_name.lstrip("/"))
            assert child.hear() >= storage.byte_size
            child.finish()
