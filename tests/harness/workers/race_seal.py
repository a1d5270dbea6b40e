"""Races writers against seals: children attach each region for writing again and again while the parent seals it.

A child's writer phase begins when its attach has passed every check and ends before it unmaps. Both clocks are the
kernel's monotonic one, so a phase that reaches past the answer "sealed" is a proof that a sealed region had a writer.
"""

import http.client
import json
import mmap
import os
import socket
import struct
import sys
import time

from region_worker import NotAttached, attach

WORD = struct.Struct("<q")
CURRENT, STOP, WORDS_EACH = 0, 1, 3
PHASES, REFUSALS, LAST_END = 0, 1, 2


class Shared:
    """64-bit words that parent and children see; each word has one writer."""

    def __init__(self, words):
        self.memory = mmap.mmap(-1, 8 * words)

    def __getitem__(self, index):
        return WORD.unpack_from(self.memory, 8 * index)[0]

    def __setitem__(self, index, value):
        WORD.pack_into(self.memory, 8 * index, value)


def cell(child, region, regions, field):
    return 2 + (child * regions + region) * WORDS_EACH + field


def race(child, regions, shared):
    count = 0
    while not shared[STOP]:
        current = shared[CURRENT]
        at = [cell(child, current, len(regions), field) for field in range(WORDS_EACH)]
        try:
            mapping = attach(regions[current], write=True)
        except (NotAttached, PermissionError):
            # Root may open what its mode forbids, and then sees from the mode that it is sealed.
            shared[at[REFUSALS]] += 1
            continue
        offset = regions[current]["tensors"][0]["byte_offset"]
        for _ in range(count % 7):
            count += 1
            WORD.pack_into(mapping, offset, count)
        count += 1
        shared[at[PHASES]] += 1
        shared[at[LAST_END]] = time.monotonic_ns()
        mapping.close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=180)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def post(connection, path, body):
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def wait_for(what, condition):
    deadline = time.monotonic() + 180
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0)


def main():
    options = json.load(open(sys.argv[1]))
    regions, children = options["regions"], options["children"]
    shared = Shared(2 + children * len(regions) * WORDS_EACH)
    pids = []
    for child in range(children):
        pid = os.fork()
        if pid == 0:
            race(child, regions, shared)
            os._exit(0)
        pids.append(pid)
    connection = UnixConnection(options["socket"])
    refused, late, sealed_after = 0, [], []
    for index, region in enumerate(regions):
        shared[CURRENT] = index
        total = lambda field: sum(shared[cell(child, index, len(regions), field)] for child in range(children))
        wait_for("a writer", lambda: total(PHASES) > 0)
        attempts = 0
        while True:
            attempts += 1
            status, body = post(connection, f"/v1/regions/{region['id']}/seal", {"checksum": True})
            answered = time.monotonic_ns()
            if status == 200:
                break
            if body["code"] != "region-has-writers":
                raise RuntimeError(body)
            refused += 1
        sealed_after.append(attempts)
        # Some tries more, to see them refused.
        before = total(REFUSALS)
        wait_for("refused writers", lambda: total(REFUSALS) > before + 3)
        ends = [shared[cell(child, index, len(regions), LAST_END)] for child in range(children)]
        late += [index for end in ends if end > answered]
    shared[STOP] = 1
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    everything = range(len(regions))
    sums = [
        sum(shared[cell(child, index, len(regions), field)] for child in range(children) for index in everything)
        for field in (PHASES, REFUSALS)
    ]
    print(
        json.dumps(
            {
                "late": late,
                "refused_seals": refused,
                "writer_phases": sums[0],
                "refused_writers": sums[1],
                "children": statuses,
            }
        )
    )


if __name__ == "__main__":
    main()
