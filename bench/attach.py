"""The Python half of attach.ts: rounds of every way to map a region, one after another, in one process.

Usage: attach.py <url> <name>. Prints one JSON object of lists of microseconds.
"""

import ctypes
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
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


def main():
    url, name = sys.argv[1:]
    client = tensord.connect(url, wait=10)
    descriptor = client.get(name)
    path, size = descriptor.storage.path, descriptor.storage.byte_size
    map_once = build_c()

    def by_descriptor():
        client.attach(descriptor).close()

    def by_name():
        client.attach(name).close()

    def by_request():
        client._transport.request("GET", "/livez", repeatable=True)
        map_in_python(path, size)

    ways = {
        "descriptor": by_descriptor,
        "python": lambda: map_in_python(path, size),
        "name": by_name,
        "request_and_python": by_request,
    }
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
