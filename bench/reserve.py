"""The Python half of reserve.ts: rounds of create and write on a server with a reserve and on one without, in turns.

Usage: reserve.py <socket with> <socket without> <bytes>. Prints one JSON object: lists of milliseconds, and how many
regions of the first server lay ready.
"""

import ctypes
import http.client
import json
import os
import re
import socket
import sys
import time

import numpy as np
import tensord

ROUNDS = {1 << 20: 30}
FEW = 7
# Creations of each way before the first round, until both servers have compiled what they compile.
WARM_UP = {1 << 20: 300}
HUGE = 2 << 20
LONGEST_WAIT = 60

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 0x1, 0x2, 0x10, 0x20, 0x4000


class Server:
    """One kept connection, as a client has it."""

    def __init__(self, path):
        self._path = path
        self.client = tensord.connect(f"unix://{path}", wait=10)
        self.connect()

    def connect(self):
        """Connects anew: a connection on which nobody asks is ended."""
        self._http = http.client.HTTPConnection("localhost")
        self._http.sock = socket.socket(socket.AF_UNIX)
        self._http.sock.connect(self._path)

    def call(self, method, path, body=None):
        headers = {} if body is None else {"content-type": "application/json"}
        self._http.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(content)
        return content

    def create(self, source):
        """Creates a region of the source's bytes, writes them through an aligned map, and lets go of that."""
        size = source.nbytes
        region = json.loads(self.call("POST", "/v1/regions", {"byte_size": size, "ttl_ms": 600_000}))
        length, offset = region["storage"]["byte_size"], region["tensors"][0]["byte_offset"]
        fd = os.open(region["storage"]["path"], os.O_RDWR)
        room = libc.mmap(None, length + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        aligned = -(-room // HUGE) * HUGE
        assert libc.mmap(aligned, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == aligned
        os.close(fd)
        memory = (ctypes.c_char * size).from_address(aligned + offset)
        np.copyto(np.frombuffer(memory, dtype=source.dtype), source)
        return region["id"], room, length + HUGE

    def release(self, made):
        region, room, length = made
        libc.munmap(room, length)
        self.call("DELETE", f"/v1/regions/{region}")

    def settle(self, size):
        """Waits until so many bytes lie ready, and are no more and no less for a while: on a busy machine that takes long."""
        deadline = time.monotonic() + LONGEST_WAIT
        last, since = 0, time.monotonic()
        self.connect()
        while (time.monotonic() - since < 0.3 or last < size) and time.monotonic() < deadline:
            now = json.loads(self.call("GET", "/v1/stats"))["pools"][0]["reserve_bytes"]
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.02)

    def count(self, what):
        text = self.call("GET", "/metrics").decode()
        return sum(int(n) for n in re.findall(rf"^tensord_reserve_{what}_total\S* (\d+)$", text, re.MULTILINE))


def main():
    size = int(sys.argv[3])
    source = np.arange(size // 8, dtype=np.int64)
    warm = np.ones_like(source)
    ready, plain = Server(sys.argv[1]), Server(sys.argv[2])

    def by_client(server):
        made = server.client.create(None, source, ttl=600)
        return lambda: (made.close(), server.client.delete(made))

    def by_map(server):
        made = server.create(source)
        return lambda: server.release(made)

    def memcpy():
        np.copyto(warm, source)
        return lambda: None

    ways = {
        "memcpy": memcpy,
        "reserve": lambda: by_map(ready),
        "none": lambda: by_map(plain),
        "client_reserve": lambda: by_client(ready),
        "client_none": lambda: by_client(plain),
    }
    times = {name: [] for name in ways}
    hits = misses = 0
    # The first rounds pay for what is loaded and compiled once, and tell the server what will be asked for.
    for way in list(ways.values()) * WARM_UP.get(size, 0):
        way()()
    for number in range(-2, ROUNDS.get(size, FEW)):
        if number == 0:
            hits, misses = ready.count("hits"), ready.count("misses")
        for name, way in ways.items():
            if name.endswith("reserve"):
                # A start makes huge segments after 2 s.
                time.sleep(3 if number == -2 else 0)
                ready.settle(source.nbytes)
            plain.connect()
            begin = time.perf_counter()
            release = way()
            elapsed = (time.perf_counter() - begin) * 1e3
            release()
            if number >= 0:
                times[name].append(elapsed)
    print(json.dumps({"ms": times, "hits": ready.count("hits") - hits, "misses": ready.count("misses") - misses}))


main()
