"""A worker that maps regions the way docs/protocol.md says, with the standard library alone.

It reads one JSON command a line and answers each with one JSON line. Tests spawn it, tell it what to map, and kill it.
"""

import argparse
import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import stat
import struct
import sys

F_OFD_SETLK = 37
LEASE_BYTE = 1 << 62
WRITER_BYTE = (1 << 62) + (1 << 61)
RENAME_EXCHANGE = 2
AT_FDCWD = -100


class NotAttached(Exception):
    """The region is not the descriptor's, or is sealed: let go and ask the server again."""


def take_read_lock(fd, start):
    # struct flock of 64-bit Linux: short type, short whence, off_t start, off_t len, pid_t pid.
    fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("=hh4xqqi4x", fcntl.F_RDLCK, os.SEEK_SET, start, 1, 0))


def attach(region, write, through=None):
    """Open, lock, then look again, map, close: the lease lasts as long as the mapping."""
    storage = region["storage"]
    # Memory without a name, as who may look into the server's process reaches it: by a descriptor there.
    path = storage["path"] if through is None else through
    nofollow = os.O_NOFOLLOW if through is None else 0
    fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | nofollow | os.O_CLOEXEC)
    try:
        take_read_lock(fd, LEASE_BYTE)
        if write:
            take_read_lock(fd, WRITER_BYTE)
        identity = (int(storage["dev"]), int(storage["ino"]))
        held = os.fstat(fd)
        named = os.lstat(path) if through is None else held
        if (held.st_dev, held.st_ino) != identity or (named.st_dev, named.st_ino) != identity:
            raise NotAttached("another file has the name")
        if held.st_size < storage["byte_size"]:
            raise NotAttached("the file is too short")
        if write and held.st_mode & stat.S_ISVTX:
            raise NotAttached("sealed")
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        return mmap.mmap(fd, storage["byte_size"], access=access)
    finally:
        os.close(fd)


def pattern(seed, length):
    """Bytes that tell two places and two seeds apart."""
    block = hashlib.sha256(str(seed).encode()).digest() * 2048
    return (block * (length // len(block) + 1))[:length]


class Worker:
    def __init__(self):
        self.mappings = {}

    def attach(self, key, region, write=False, through=None):
        self.mappings[key] = attach(region, write, through)

    def detach(self, key):
        self.mappings.pop(key).close()

    def write(self, key, offset, length, seed):
        self.mappings[key][offset : offset + length] = pattern(seed, length)

    def read(self, key, offset, length):
        return self.mappings[key][offset : offset + length].hex()

    def digest(self, key):
        return hashlib.sha256(self.mappings[key]).hexdigest()

    def truncate(self, path, size):
        os.truncate(path, size)

    def open(self, path, write=False):
        """Whether the path can be opened, by its errno's name."""
        try:
            os.close(os.open(path, os.O_RDWR if write else os.O_RDONLY))
            return "ok"
        except OSError as error:
            return errno.errorcode[error.errno]

    def list(self, path):
        try:
            os.listdir(path)
            return "ok"
        except OSError as error:
            return errno.errorcode[error.errno]

    def exchange(self, one, other):
        """Swaps two names in one step, so that a watch never sees either of them missing."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")


def become(uid, gid):
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    options = parser.parse_args()
    if options.uid is not None:
        become(options.uid, options.gid)
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        action = command.pop("do")
        try:
            answer = {"ok": True, "value": getattr(worker, action)(**command)}
        except (OSError, NotAttached) as error:
            code = errno.errorcode.get(getattr(error, "errno", None), str(error))
            answer = {"ok": False, "error": code}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
