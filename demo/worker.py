"""A worker: maps the weights, compares every byte with the file on disk, and goes on comparing until told to stop.

It hears ``measure`` (how much memory do you hold), ``report`` (how did the comparing go) and ``stop``.
"""

from __future__ import annotations

import sys
import time

import tensord
import xxhash
from talk import hear_now, private_bytes, say
from weights import digests_on_disk, find_weights

# Between two rounds, so that three workers leave the machine's few cores to the others.
PAUSE_SECONDS = 0.1

expected = digests_on_disk(find_weights())
before = private_bytes()
begin = time.perf_counter()
region = tensord.attach(sys.argv[1], timeout=30)
ready_ms = (time.perf_counter() - begin) * 1e3
arrays = {name: tensor.bytes() for name, tensor in region.tensors.items()}


def count_matching() -> int:
    return sum(xxhash.xxh3_128_hexdigest(arrays[name]) == digest for name, digest in expected.items())


say(before=before, ready_ms=ready_ms, matching=count_matching(), tensors=len(arrays))
rounds = mismatches = 0
while True:
    word = hear_now()
    if word == "measure":
        say(after=private_bytes())
    elif word == "report":
        say(rounds=rounds, mismatches=mismatches)
    elif word == "stop":
        break
    mismatches += len(expected) - count_matching()
    rounds += 1
    time.sleep(PAUSE_SECONDS)
region.close()
say(rounds=rounds, mismatches=mismatches)
