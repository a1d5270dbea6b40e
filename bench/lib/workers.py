"""Worker processes that all make the same thing, and what each then takes of the memory.

A worker says a line when it is there, makes its thing when it is told to, says what it uses of it as JSON, and stays until it
is told to go: ``serve``. ``measure`` starts them and looks at them.
"""

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

WORKERS = 4
# <malloc.h>
M_MMAP_THRESHOLD = -3


def serve(make, use):
    """One worker: ``make()`` gives the thing, ``use(thing)`` a mapping of what is to be known of it, its first answer among that."""
    print(json.dumps("there"), flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    made = make()
    made_seconds = time.monotonic() - begun
    used = use(made)
    print(json.dumps({**used, "made_seconds": made_seconds, "seconds": time.monotonic() - begun}), flush=True)
    sys.stdin.readline()


def memory_of(pid):
    """Private and proportional bytes of a process: proc(5), smaps_rollup."""
    rows = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        rows[name] = int(value) * 1024
    # Of what is a file's only those pages are private that were written to.
    return {"private": rows["Anonymous:"], "proportional": rows["Pss:"]}


class Worker:
    """A process of a program of its own."""

    def __init__(self, command):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self):
        return json.loads(self._process.stdout.readline())

    def go_on(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self):
        self.go_on()
        self._process.wait()

    def memory(self):
        return memory_of(self._process.pid)


class ForkedWorker:
    """A fork of this process, which does ``work`` with what is imported here: torch's import takes longer than most of what is measured.
    This process must have no other threads.
    """

    def __init__(self, work):
        told, tell = os.pipe()
        hear, heard = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.dup2(told, 0)
                os.dup2(heard, 1)
                for each in (told, tell, hear, heard):
                    os.close(each)
                # As a process begins: what was freed before the fork makes malloc keep what it would have given back.
                ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
                work()
                status = 0
            finally:
                if status != 0:
                    traceback.print_exc()
                os._exit(status)
        os.close(told)
        os.close(heard)
        self._tell = os.fdopen(tell, "w")
        self._hear = os.fdopen(hear)

    def hear(self):
        return json.loads(self._hear.readline())

    def go_on(self):
        self._tell.write("\n")
        self._tell.flush()

    def end(self):
        self.go_on()
        os.waitpid(self._pid, 0)
        self._tell.close()
        self._hear.close()

    def memory(self):
        return memory_of(self._pid)


def measure(worker, look=lambda: None):
    """What each of four workers takes beyond what the same process took before, ``private`` and ``proportional`` bytes (pages that
    they share counted by their share), with what it said, in the order in which they were told to begin, one after the other;
    what a fifth said that began when these were measured; and what ``look()`` then says. A worker is a command, or what a fork of this
    process does.
    """
    start = ForkedWorker if callable(worker) else Worker
    workers = [start(worker) for _ in range(WORKERS)]
    for each in workers:
        each.hear()
    before = [each.memory() for each in workers]
    said = []
    for each in workers:
        each.go_on()
        # In turns: the first builds, the last finds what is there.
        said.append(each.hear())
    after = [each.memory() for each in workers]
    fifth = start(worker)
    fifth.hear()
    fifth.go_on()
    fifth_said = fifth.hear()
    seen = look()
    for each in (*workers, fifth):
        each.end()
    found = [
        {**words, **{what: bytes_after[what] - bytes_before[what] for what in bytes_after}}
        for bytes_before, bytes_after, words in zip(before, after, said, strict=True)
    ]
    return found, fifth_said, seen


def measure_rows(client, engine, ways, command, told=()):
    """A row of the table for each way of an engine. ``ways`` says of each the one that it is held against, whose answers are its own, or
    None; ``command`` makes a worker's of a way. Those in ``told`` are held against one, and to no target.
    """

    def regions():
        return {region.id: region.storage.byte_size for region in client.list()}

    for way, beside in ways.items():
        # Those of the way before may be on their way out.
        others = regions()
        found, fifth, there = measure(command(way), regions)
        later = found[1:]
        yield {
            "engine": engine,
            "way": way,
            "beside": beside,
            "has_target": beside is not None and way not in told,
            "weights": found[0]["weights"],
            # The first one builds, and keeps of that what malloc does not give back.
            "private_first": found[0]["private"],
            "private": max(each["private"] for each in later),
            # Where nobody says what of that is the weights', all of it is taken for that.
            "private_weights": max(each.get("private_weights", each["private"]) for each in later),
            "proportional": sum(each["proportional"] for each in found),
            "regions": sum(byte_size for region, byte_size in there.items() if region not in others),
            "fifth_made_seconds": fifth["made_seconds"],
            "fifth_seconds": fifth["seconds"],
            "answers": sorted({str(each["answer"]) for each in (*found, fifth)}),
        }
