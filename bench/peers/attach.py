"""A half of peers.ts: what another process has put is got again and again, a view of its bytes without a copy, by every
system in turn; and by bare calls.

Usage: attach.py <url> <bytes>. Prints one JSON object: microseconds by system, and what is not here.
"""

import json
import sys
import time

import numpy as np
from systems import File, start_all

ROUNDS = 1000
WARM_UP = 50


def main():
    url, size = sys.argv[1], int(sys.argv[2])
    source = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    systems, absent = start_all(url, size)
    shared = [(system, system.share(source)) for system in systems if system.get is not None]
    times = {system.title: [] for system, _ in shared}
    try:
        for number in range(WARM_UP + ROUNDS):
            for system, key in shared:
                begin = time.perf_counter()
                array, close = system.get(key)
                last = array[-1]
                elapsed = time.perf_counter() - begin
                assert last == source[-1]
                del array
                close()
                if number >= WARM_UP:
                    times[system.title].append(elapsed * 1e6)
    finally:
        for system, key in shared:
            system.drop(key)
        del shared
        for system in systems:
            system.stop()
    times["open + mmap"] = times.pop(File.title)
    print(json.dumps({"times": times, "absent": absent}))


main()
