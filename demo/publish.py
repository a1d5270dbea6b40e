"""Loads the weights as everybody does, and puts all of them into one region for the whole machine."""

from __future__ import annotations

import sys
import time

import tensord
from safetensors.numpy import load_file
from talk import say
from weights import describe, find_weights

name, ttl = sys.argv[1], float(sys.argv[2])
path = find_weights()
begin = time.perf_counter()
arrays = load_file(path)
loaded = time.perf_counter()
with tensord.connect() as client, client.create(name, arrays, ttl=ttl) as region:
    created = time.perf_counter()
    descriptor = region.seal(checksum=True)
sealed = time.perf_counter()
say(
    **describe(path),
    file=str(path),
    region=descriptor.raw,
    load_ms=(loaded - begin) * 1e3,
    create_ms=(created - loaded) * 1e3,
    seal_ms=(sealed - created) * 1e3,
)
