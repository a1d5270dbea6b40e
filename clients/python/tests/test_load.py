"""Model files that the server loads: what stock writers have written arrives as it was, once, however many ask."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Child, Server

import tensord


def _save(server: Server, name: str, tensors: dict[str, Any]) -> Path:
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is a test extra")
    path = server.models / name
    numpy.save_file(tensors, path)
    return path


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_is_a_mapping_of_names_to_tensors(server: Server, client: tensord.Client) -> None:
    tensors = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.ones((3, 1), np.float16),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4), np.int8),
    }
    path = _save(server, "model.safetensors", tensors)
    told: list[tuple[int, int]] = []
    with client.load_model(path, timeout=180, progress=lambda *done: told.append(done)) as weights:
        assert sorted(weights) == sorted(tensors)
        for name, array in tensors.items():
            tensor = weights[name].numpy()
            assert (tensor.dtype, tensor.tolist(), tensor.flags.writeable) == (array.dtype, array.tolist(), False)
        assert (weights.name, weights.state, weights.descriptor.owner.kind) == ("model", "sealed", "linger")
        assert _hash(Path(weights.descriptor.storage.path or "")) == _hash(path)
        with client.load_model(str(path)) as again:
            assert again.id == weights.id
    assert all(done <= total for done, total in told)


def test_every_worker_that_loads_a_file_gets_the_same_region(server: Server, client: tensord.Client) -> None:
    path = _save(server, "shared.safetensors", {"w": np.zeros(1 << 20, np.float32)})
    script = f"""
import tensord
with tensord.connect() as client, client.load_model({str(path)!r}, persist=True, evictable=True) as weights:
    say(weights.id)
    hear()
"""
    with Child(script) as first, Child(script) as second:
        found = {first.hear(), second.hear()}
        for child in (first, second):
            child.say("end")
            child.finish()
    assert found == {region.id for region in client.list()}


def test_a_load_is_an_operation_that_is_followed_and_fails_in_words(server: Server, client: tensord.Client) -> None:
    path = _save(server, "a model.safetensors", {"w": np.zeros(3)})
    operation = client.load(path, name="mine", version="v1", ttl=600, storage="memfd")
    region = operation.wait(180)
    assert (operation.descriptor.kind, operation.descriptor.source, operation.state) == ("load", str(path), "succeeded")
    assert (region.name, region.version, region.storage.kind) == ("mine", "v1", "memfd")
    with pytest.raises(tensord.NameTaken):
        client.load(path, name="mine", version="v1", ttl=600, if_exists="fail").wait(180)

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(tensord.InvalidModelFile, match=r"Cannot load .*a model\.safetensors"):
        client.load_model(path)
    pickled = server.models / "model.pt"
    pickled.write_bytes(b"\x80\x04K.")
    with pytest.raises(tensord.UnsupportedFormat, match="it is a pickle"):
        client.load_model(pickled)
    with pytest.raises(tensord.Forbidden, match="it is below none of"):
        client.load("/etc/passwd")


def test_any_file_is_taken_for_bytes_and_found_by_its_path(server: Server, client: tensord.Client) -> None:
    path = server.models / "model.onnx"
    path.write_bytes(bytes(range(256)))
    with client.load_model(path, raw=True) as weights:
        assert bytes(weights.bytes()) == bytes(range(256))
    with client.hold("model.onnx") as held:
        assert Path(held).read_bytes() == path.read_bytes()


def test_a_relative_path_counts_from_the_folder_of_this_process(
    server: Server, client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = server.models / "array.npy"
    np.save(path, np.arange(5))
    monkeypatch.chdir(server.models)
    with client.load_model("array.npy") as weights:
        assert weights["array"].numpy().tolist() == [0, 1, 2, 3, 4]
        stock = np.load(weights.descriptor.storage.path, mmap_mode="r")
        assert stock.tolist() == [0, 1, 2, 3, 4]
    with client.load_model(path.as_uri()) as again:
        assert again.name == "array"
    # Another state of the file with the same bytes is the same region, other bytes are another version.
    os.utime(path, (1, 1))
    with client.load_model(path) as touched:
        assert touched.id == again.id
    np.save(path, np.arange(1, 6))
    with client.load_model(path) as changed:
        assert changed.version != again.version
        assert changed["array"].numpy().tolist() == [1, 2, 3, 4, 5]


def test_a_model_in_several_files_is_one_mapping(server: Server, client: tensord.Client) -> None:
    parts: list[dict[str, Any]] = [{"a": np.arange(4.0)}, {"b": np.arange(3, dtype=np.int8), "c": np.ones((2, 2))}]
    names = [f"big-0000{at}-of-00002.safetensors" for at in (1, 2)]
    for name, tensors in zip(names, parts, strict=True):
        _save(server, name, tensors)
    weights_of = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    path = server.models / "big.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 67}, "weight_map": weights_of}))
    with client.load_model(path) as weights:
        assert (weights.name, sorted(weights)) == ("big", ["a", "b", "c"])
        for part in parts:
            for tensor, array in part.items():
                assert np.array_equal(weights[tensor].numpy(), array)
        stock = pytest.importorskip("safetensors.numpy").load_file(weights.descriptor.storage.path)
        assert sorted(stock) == ["a", "b", "c"]
        assert np.array_equal(stock["c"], parts[1]["c"])
