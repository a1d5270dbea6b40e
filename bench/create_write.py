"""The Python half of create-write.ts: rounds of every way to get an array into shared memory, in one process.

Usage: create_write.py <url> <bytes> <rounds>. Prints one JSON object of lists of milliseconds.
"""

import json
import sys
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import tensord

# Small creations before the first round, until the server has compiled what it compiles.
WARM_UP = 300


def main():
    url, size, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client = tensord.connect(url, wait=10)
    source = np.arange(size // 8, dtype=np.int64)
    warm = np.ones_like(source)

    def memcpy():
        np.copyto(warm, source)

    def create_and_write():
        return client.create(None, source, ttl=600)

    def create_alone():
        return client.create(None, shape=source.shape, dtype=source.dtype, ttl=600)

    def shared_memory():
        memory = SharedMemory(create=True, size=size)
        np.copyto(np.frombuffer(memory.buf, dtype=source.dtype, count=source.size), source)
        return memory

    def release(made):
        if isinstance(made, tensord.Region):
            made.close()
            client.delete(made)
        elif made is not None:
            made.close()
            made.unlink()

    for _ in range(WARM_UP):
        release(client.create(None, shape=(1 << 16,), dtype=np.uint8, ttl=600))
    ways = [memcpy, create_and_write, create_alone, shared_memory]
    times = {way.__name__: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            begin = time.perf_counter()
            made = way()
            elapsed = (time.perf_counter() - begin) * 1e3
            if made is not None and isinstance(made, tensord.Region) and way is create_and_write:
                assert made.numpy()[-1] == source[-1]
            release(made)
            # The first round pays for what is loaded and compiled once.
            if number > 0:
                times[way.__name__].append(elapsed)
    print(json.dumps(times))


main()
