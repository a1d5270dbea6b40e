"""Worker processes that all make the same thing, and what each then takes of the memory.

A worker says a line when it is there, makes its thing when it is told to, says what it uses of it as JSON, and stays until it
is told to go: ``serve``. ``measure`` starts them and looks at them.
"""

import json
import pathlib
import subprocess
import sys
import time


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


def measure(command, count):
    """What each of ``count`` workers takes beyond what the same process took before, ``private`` and ``proportional`` bytes (pages that
    they share counted by their share), with what it said: in the order in which they were told to begin, one after the other.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(count)]

    def hear(worker):
        return json.loads(worker.stdout.readline())

    def tell(worker):
        worker.stdin.write("\n")
        worker.stdin.flush()

    def taken():
        return [memory_of(worker.pid) for worker in workers]

    for worker in workers:
        hear(worker)
    before = taken()
    said = []
    for worker in workers:
        tell(worker)
        # In turns: the first builds, the last finds what is there.
        said.append(hear(worker))
    after = taken()
    for worker in workers:
        tell(worker)
        worker.wait()
    return [
        {**words, **{what: bytes_after[what] - bytes_before[what] for what in bytes_after}}
        for bytes_before, bytes_after, words in zip(before, after, said, strict=True)
    ]


def sum_up(found):
    """Of workers that have a module each: the weights of one; the private bytes of the largest, all together, and the most that one
    calls its module's own; the time of the last; and how many different answers there were.
    """
    return {
        "weights": found[0]["weights"],
        "private": max(each["private"] for each in found),
        "proportional": sum(each["proportional"] for each in found),
        "private_by_module": max(each["private_by_module"] for each in found),
        "last_seconds": found[-1]["seconds"],
        "answers": len({each["answer"] for each in found}),
    }
