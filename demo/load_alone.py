"""What every worker does today: a copy of the weights of its own. Shows what that costs in private memory."""

from __future__ import annotations

import time

import xxhash
from safetensors.numpy import load_file
from talk import private_bytes, say
from weights import digests_on_disk, find_weights

path = find_weights()
expected = digests_on_disk(path)
before = private_bytes()
begin = time.perf_counter()
arrays = load_file(path)
load_ms = (time.perf_counter() - begin) * 1e3
matching = sum(xxhash.xxh3_128_hexdigest(arrays[name].tobytes()) == digest for name, digest in expected.items())
say(before=before, after=private_bytes(), ready_ms=load_ms, matching=matching, tensors=len(expected))
