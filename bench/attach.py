"""The Python half of attach.ts: rounds of every way to map a region, one after another, in one process.

Usage: attach.py <url> <name> <bytes>. A region that has fewer bytes is open, and is grown to so many here, by a hole,
and known to nobody but this process: then there are no ways by name. Prints one JSON object of lists of microseconds.
"""

import ctypes
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import tensord
from tensord._mapping import libc

ROUNDS = 3000
WARM_UP = 300

C_SOURCE = """
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
long map_once(const char *path, unsigned long size) {
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  void *p = mmap(0, size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  munmap(p, size);
  clock_gettime(CLOCK_MONOTONIC, &b);
  return fd < 0 || p == MAP_FAILED ? -1 : (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec;
}
"""


def build_c():
    """The same calls without an interpreter, or None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "map.c"), Path(folder, "map.so")
        source.write_text(C_SOURCE)
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        function = ctypes.CDLL(str(library)).map_once
    function.argtypes = [ctypes.c_char_p, ctypes.c_ulong]
    function.restype = ctypes.c_long
    return function


def map_in_python(path, size):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    libc.munmap(address, size)


def open_raw(url, name):
    """The least that an exchange can be: one write, one answer of a known form, JSON."""
    kept = socket.socket(socket.AF_UNIX)
    kept.connect(url.removeprefix("unix://"))
    head = f"GET /v1/models/default/regions/{name} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    request = f"{head}Prefer: attach\r\n\r\n".encode()

    def ask():
        kept.sendall(request)
        answer = kept.recv(65536)
        return json.loads(answer[answer.index(b"\r\n\r\n") + 4 :])

    return ask


def main():
    url, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    client = tensord.connect(url, wait=10)
    descriptor = client.get(name)
    path, is_whole = descriptor.storage.path, descriptor.storage.byte_size >= size
    with client.attach(name) as region:
        reference = region.ref()
    if is_whole:
        size = descriptor.storage.byte_size
    else:
        os.truncate(path, size)
        descriptor = replace(descriptor, storage=replace(descriptor.storage, byte_size=size))
        reference = replace(
            reference,
            byte_size=size - reference.byte_offset,
            shape=(size - reference.byte_offset,),
        )
    map_once = build_c()
    ask = open_raw(url, name)

    def by_name_and_question():
        client._known_sealed.clear()
        client.attach(name).close()

    def by_exchange():
        ask()
        map_in_python(path, size)

    ways = {
        "descriptor": lambda: client.attach(descriptor).close(),
        "reference": lambda: client.open(reference).close(),
        "python": lambda: map_in_python(path, size),
    }
    if is_whole:
        ways["asked"] = by_name_and_question
        ways["name"] = lambda: client.attach(name).close()
        ways["exchange_and_python"] = by_exchange
    times = {way: [] for way in ways}
    times["c"] = None if map_once is None else []
    for number in range(WARM_UP + ROUNDS):
        for way, call in ways.items():
            begin = time.perf_counter_ns()
            call()
            elapsed = time.perf_counter_ns() - begin
            if number >= WARM_UP:
                times[way].append(elapsed / 1000)
        if map_once is not None:
            elapsed = map_once(path.encode(), size)
            if number >= WARM_UP:
                times["c"].append(elapsed / 1000)
    print(json.dumps(times))


main()
