"""Paged KV caches of two models on one GPU: each grows and shrinks with its load, in memory that both share. What one gives
back the other takes, and no address ever moves. ``python kv_cache.py``
"""

import contextlib
import json
import multiprocessing

import numpy as np

import tensord

PAGE = 2 << 20
# Addresses of each, of which only pages that are mapped cost memory.
CAPACITY = 1 << 30
# How many conversations each model has at once, in four turns. Both together never have as many as their peaks add up to.
LOADS = {"chat": (2, 20, 2, 0), "search": (2, 2, 20, 0)}


class PagedCache:
    """Keys and values of conversations, in pages that come with the first and go with the last token."""

    def __init__(self, pool):
        self.pool = pool
        self.runs = {}

    def begin(self, conversation):
        """A page for its first tokens; as long as the other model has the memory, this waits for it."""
        run = self.pool.map(PAGE, on_full="wait", deadline=120)
        self.runs[conversation] = run
        # What a kernel would write there. It has the tensor by torch(), DLPack or its address.
        self.tokens(run).copy_from_host(np.full(1024, conversation, np.float32))

    def end(self, conversation):
        """Gives its page back, once the device has done what it was told."""
        run = self.runs.pop(conversation)
        whole = bool((self.tokens(run).copy_to_host() == conversation).all())
        self.pool.unmap(run.byte_offset, run.byte_size)
        return whole

    def tokens(self, run):
        return self.pool.tensor(run.byte_offset, 1024, "F32")


def serve(model, turn):
    with tensord.connect() as client:
        with contextlib.suppress(tensord.ModelExists):
            client.register_model(model)
        with client.pool(model, "cuda:0", CAPACITY, page_size=PAGE) as pool:
            cache, peak, whole, begun, base = PagedCache(pool), 0, True, 0, pool.base_address
            for load in LOADS[model]:
                turn.wait(120)
                while len(cache.runs) < load:
                    cache.begin(begun)
                    begun += 1
                while len(cache.runs) > load:
                    whole = cache.end(next(iter(cache.runs))) and whole
                peak = max(peak, pool.mapped_bytes)
            moved = pool.base_address != base
        client.delete_pool(model, "cuda:0")
    print(json.dumps({"model": model, "peak_bytes": peak, "whole": whole, "moved": moved}))


if __name__ == "__main__":
    # CUDA does not survive a fork.
    context = multiprocessing.get_context("spawn")
    turn = context.Barrier(len(LOADS))
    models = [context.Process(target=serve, args=(model, turn)) for model in LOADS]
    for each in models:
        each.start()
    for each in models:
        each.join()
