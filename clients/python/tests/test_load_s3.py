"""Objects of an S3 server that the server loads: by their URIs, once, and refused in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import localbucket
import numpy as np
import pytest
from harness import Server

import tensord


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """The folder of the bucket ``models``, and where its server listens."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(localbucket.S3Handler, "data_root", tmp_path, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), localbucket.S3Handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


def test_an_object_is_a_mapping_of_names_to_tensors(bucket: tuple[Path, str]) -> None:
    folder, endpoint = bucket
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is a test extra")
    numpy.save_file({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, folder / "llama 7b.safetensors")
    uri = "s3://models/llama 7b.safetensors"
    server = Server(TENSORD_MODEL_ROOTS="s3://models", AWS_ENDPOINT_URL=endpoint)
    server.start()
    try:
        with server.connect() as client:
            with client.load_model(uri) as weights, client.load_model(uri) as again:
                assert weights["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
                assert (weights.name, weights.descriptor.labels) == ("llama-7b", {"tensord.file": uri})
                assert again.id == weights.id
            with pytest.raises(tensord.InvalidModelFile, match=r"s3://models/none\.gguf.*it is not there"):
                client.load_model("s3://models/none.gguf")
            with pytest.raises(tensord.Forbidden, match="it is below none of s3://models"):
                client.load("s3://others/a")
            for path in [Path(uri), "http://models/a"]:
                with pytest.raises(tensord.TensordError):
                    client.load(path)
    finally:
        server.stop()
