"""Many clients of a broker in one process, each with a connection, a session and a mapping of its own, as docs/protocol.md says.

It reads one JSON command a line and answers each with one JSON line. Its tests kill the server below it, again and again.

Usage: crowd.py <the broker's socket> <how many clients>
"""

import contextlib
import json
import mmap
import os
import socket
import sys
import time

LONGEST_FRAME = 65536
MOST_DESCRIPTORS = 251
HOUR_MS = 3_600_000
DEADLINE_S = 60


class ServerGone(Exception):
    """The connection ended, or nobody listens."""


class Client:
    """One connection that holds a session, and one mapping, which outlasts both."""

    def __init__(self, path, region, writes, number):
        self.path = path
        self.region = region
        self.writes = writes
        self.number = number
        self.written = 0
        self.session = None
        self.connection = None
        self.last_id = 0
        self.connect()
        self.mapping = self.attach()

    def connect(self):
        """Holds its session, a new one the first time."""
        if self.connection is not None:
            self.connection.close()
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.connection.connect(self.path)
        except OSError as error:
            raise ServerGone from error
        wanted = {"ttl_ms": HOUR_MS} if self.session is None else self.session
        answer, _ = self.ask("hello", v=1, session=wanted)
        if self.session is not None and answer["session"]["id"] != self.session:
            raise AssertionError(f"another session than {self.session}: {answer}")
        self.session = answer["session"]["id"]

    def ask(self, op, **members):
        self.last_id += 1
        try:
            self.connection.send(json.dumps({"id": self.last_id, "op": op, **members}).encode())
            text, fds, _, _ = socket.recv_fds(self.connection, LONGEST_FRAME, MOST_DESCRIPTORS)
        except OSError as error:
            raise ServerGone from error
        if text == b"":
            raise ServerGone
        answer = json.loads(text)
        # A server that stops says so with an answer to no request.
        if answer["id"] is None:
            raise ServerGone
        if not answer["ok"] or answer["id"] != self.last_id:
            raise AssertionError(f"{op} of {self.region['id']}: {answer}")
        return answer, fds

    def attach(self):
        """Maps the region anew, and finds the memory that it has always been."""
        # An answer with tensors is the event loop's, and one without them a Worker's.
        wants_tensors = self.number % 3 == 0
        access = "rw" if self.writes else "ro"
        _, fds = self.ask("attach", region=self.region["id"], access=access, tensors=wants_tensors)
        try:
            found = os.fstat(fds[0])
            storage = self.region["storage"]
            if (str(found.st_dev), str(found.st_ino)) != (storage["dev"], storage["ino"]):
                raise AssertionError(f"other memory is {self.region['id']} now: {found}")
            protection = mmap.ACCESS_WRITE if self.writes else mmap.ACCESS_READ
            mapping = mmap.mmap(fds[0], storage["byte_size"], access=protection)
        finally:
            for fd in fds:
                os.close(fd)
        if self.writes and mapping[-1 - self.number] != self.written:
            raise AssertionError(f"client {self.number} does not find what it wrote to {self.region['id']}")
        return mapping

    def go_on(self):
        """One more mapping takes the place of the last one, and what is written through it is there for the next."""
        mapping = self.attach()
        self.mapping.close()
        self.mapping = mapping
        if self.writes:
            self.written = (self.written + 1) % 256
            mapping[-1 - self.number] = self.written
        self.ask("release", region=self.region["id"])

    def connect_again(self):
        """Until a server listens; each attempt may meet another death."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(ServerGone):
                return self.connect()
            if time.monotonic() > deadline:
                raise AssertionError("no server came back")
            time.sleep(0.01)


class Crowd:
    def __init__(self, path, count):
        self.path = path
        self.count = count
        self.clients = []

    def open(self, regions, first):
        """Clients `first` and those after it, of which those of open regions write. Answers their sessions."""
        for number in range(first, first + self.count):
            region = regions[number % len(regions)]
            self.clients.append(Client(self.path, region, region["state"] == "open", number))
        return [client.session for client in self.clients]

    def work(self):
        """Attaches until the server is gone. Answers how often it did."""
        done = 0
        with contextlib.suppress(ServerGone):
            while True:
                for client in self.clients:
                    client.go_on()
                    done += 1
        return done

    def come_back(self):
        """Each holds its session again, and attaches again."""
        for client in self.clients:
            client.connect_again()
            client.go_on()


def main():
    crowd = Crowd(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        command = json.loads(line)
        action = command.pop("do")
        try:
            answer = {"ok": True, "value": getattr(crowd, action)(**command)}
        except (AssertionError, OSError, ServerGone) as error:
            answer = {"ok": False, "error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
