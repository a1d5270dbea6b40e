"""A half of peers.ts: an array of each size is put where other processes reach it, by every system in turn.

Usage: create_write.py <url> <bytes> … Prints one JSON object: milliseconds by size and system, and what is not here.
"""

import json
import sys
import time

import numpy as np
from systems import start_all

ROUNDS = {1 << 20: 60, 64 << 20: 15}
FEW = 7
# Rounds that count for nobody: what is made once, which is code, connections and arenas. Of small ones more, until
# every system has compiled what it compiles: daemons that live for weeks are measured as they are then.
WARM_UP = {1 << 20: 300}


def main():
    url, sizes = sys.argv[1], [int(text) for text in sys.argv[2:]]
    times = {}
    systems, absent = start_all(url, max(sizes))
    try:
        for size in sizes:
            source = np.random.default_rng(1).integers(0, 256, size, np.uint8)
            warm = np.ones_like(source)
            found = times[str(size)] = {"memcpy": [], **{system.title: [] for system in systems}}
            for number in range(-WARM_UP.get(size, 1), ROUNDS.get(size, FEW)):
                begin = time.perf_counter()
                np.copyto(warm, source)
                elapsed = {"memcpy": time.perf_counter() - begin}
                for system in systems:
                    begin = time.perf_counter()
                    key = system.put(source)
                    elapsed[system.title] = time.perf_counter() - begin
                    system.drop(key)
                    del key
                if number >= 0:
                    for title, seconds in elapsed.items():
                        found[title].append(seconds * 1e3)
    finally:
        for system in systems:
            system.stop()
    print(json.dumps({"times": times, "absent": absent}))


main()
