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
    used = use(made)
    print(json.dumps({**used, "seconds": time.monotonic() - begun}), flush=True)
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
    """What ``count`` workers take beyond what the same processes took before, in bytes: private ones, the largest of a worker;
    proportional ones, pages that they share counted once, the sum of all. Beside that what they said: what the first uses, the
    most that one calls its own, the time of the last, and how many different answers there were.
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
    used = []
    for worker in workers:
        tell(worker)
        # In turns: the first builds, the last finds what is there.
        used.append(hear(worker))
    after = taken()
    for worker in workers:
        tell(worker)
        worker.wait()
    more = [
        {what: bytes_after[what] - bytes_before[what] for what in bytes_after}
        for bytes_before, bytes_after in zip(before, after, strict=True)
    ]
    return {
        "weights": used[0]["weights"],
        "private": max(each["private"] for each in more),
        "proportional": sum(each["proportional"] for each in more),
        "private_by_module": max(each["private_by_module"] for each in used),
        "last_seconds": used[-1]["seconds"],
        "answers": len({each["answer"] for each in used}),
    }
