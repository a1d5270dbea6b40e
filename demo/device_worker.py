"""A worker on a device: maps a region there, and says what its bytes come to until told to stop."""

from __future__ import annotations

import sys
import time

import tensord
import xxhash
from talk import hear, say

name, device = sys.argv[1:3]
client = tensord.connect()
begin = time.perf_counter()
region = client.attach(name, device=device, timeout=30)
attach_ms = (time.perf_counter() - begin) * 1e3
(tensor,) = region.tensors.values()


def digest() -> str:
    return xxhash.xxh3_128_hexdigest(tensor.copy_to_host())


say(attach_ms=attach_ms, digest=digest())
while hear() != "stop":
    say(digest=digest())
region.close()
client.close()
say()
