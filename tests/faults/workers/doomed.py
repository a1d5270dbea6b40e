"""Workers that are made to be killed: each does one thing with the server again and again, until somebody kills it.

A parent forks one for each JSON line on its standard input, since a fork is cheaper than a new interpreter. What a
worker has reached it tells as one JSON line on the common standard output, in a single write, so that lines never mix.

Usage: doomed.py <socket>
A line: {"id": 1, "role": "filling", "seed": 7, …the role's own arguments}.
A report: {"id": 1, "pid": 4711, "at": "filling", …facts}.
"""

import base64
import http.client
import json
import mmap
import os
import pathlib
import random
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "harness" / "workers"))

from region_worker import NotAttached, attach, pattern

MIB = 1 << 20
# Long enough to be held in time on a busy machine; whoever is killed before that ends with it.
SESSION_TTL_MS = 1000
CLAIM_WAIT_S = 20


class Refused(Exception):
    def __init__(self, status, problem):
        super().__init__(f"{status} {problem}")
        self.code = problem.get("code")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Worker:
    """One worker: its session, its connection, and what it maps."""

    def __init__(self, path, command):
        self.path = path
        self.command = command
        self.random = random.Random(command["seed"])
        self.http = UnixConnection(path)
        self.session = None
        self.hold = None

    def tell(self, at, **facts):
        line = {"id": self.command["id"], "pid": os.getpid(), "at": at, **facts}
        os.write(1, (json.dumps(line) + "\n").encode())

    def call(self, method, path, body=None, headers=None):
        text = None if body is None else json.dumps(body)
        type_header = {} if body is None else {"Content-Type": "application/json"}
        self.http.request(method, path, text, {**type_header, **(headers or {})})
        response = self.http.getresponse()
        answer = json.loads(response.read())
        if response.status >= 300:
            raise Refused(response.status, answer)
        return answer

    def open(self):
        """Opens a session and holds it. On a machine so busy that its TTL was over first, opens another one."""
        while True:
            client = {"name": "doomed", "pid": os.getpid()}
            session = self.call("POST", "/v1/sessions", {"client": client, "ttl_ms": SESSION_TTL_MS})
            self.session = session["id"]
            if self.try_hold():
                return

    def try_hold(self):
        hold = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        hold.connect(self.path)
        key = base64.b64encode(os.urandom(16)).decode()
        hold.sendall(
            f"GET /v1/sessions/{self.session}/hold HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = hold.recv(4096)
            if piece == b"":
                return False
            answer += piece
        if not answer.startswith(b"HTTP/1.1 101"):
            return False
        self.hold = hold
        return True

    def say(self, report):
        """A text frame of a client (RFC 6455, 5.2): final, masked, here with a mask of zeros."""
        text = json.dumps(report).encode()
        self.hold.sendall(struct.pack("!BB4x", 0x81, 0x80 | len(text)) + text)

    def map(self, region, write=False):
        mapping = attach(region, write)
        self.say({"attach": region["id"], "writable": write})
        return mapping

    def create(self, byte_size, **options):
        owner = {} if options.keys() & {"ttl_ms", "linger_ms", "persist"} else {"session": self.session}
        room = {"on_full": "wait", "deadline_ms": 60_000}
        return self.call("POST", "/v1/regions", {"byte_size": byte_size, **owner, **room, **options})

    def fill(self, mapping):
        begin = mapping.size() - (mapping.size() % mmap.PAGESIZE or mmap.PAGESIZE)
        for at in range(mmap.PAGESIZE, begin, 64 * mmap.PAGESIZE):
            mapping[at : at + 16] = pattern(at, 16)

    def some_bytes(self):
        return self.random.choice([5000, 60_000, MIB + 1, 6 * MIB])

    # The roles. Each tells what it has reached, and goes on until it is killed.

    def creating(self):
        self.open()
        self.tell("creating", session=self.session)
        regions = []
        while True:
            regions.append(self.create(self.random.choice([20 * MIB, 60_000])))
            if len(regions) > 2:
                self.call("DELETE", f"/v1/regions/{regions.pop(0)['id']}")

    def filling(self):
        self.open()
        mappings = [self.map(self.create(self.some_bytes()), write=True) for _ in range(3)]
        self.tell("filling", session=self.session)
        while True:
            for mapping in mappings:
                self.fill(mapping)

    def holding(self):
        """Maps and writes what it is told to; big, for benchmarks."""
        self.open()
        sizes = self.command["byte_sizes"]
        mappings = [self.map(self.create(byte_size), write=True) for byte_size in sizes]
        for mapping in mappings:
            for at in range(0, mapping.size(), mmap.PAGESIZE):
                mapping[at] = 1
        self.tell("holding", session=self.session)
        while True:
            signal.pause()

    def sealed(self):
        """Sealed and mapped; beside what is its own it makes a region that outlives it, and tells of it."""
        self.open()
        mappings = []
        for _ in range(2):
            region = self.create(self.some_bytes(), name=f"s{self.command['id']}-{len(mappings)}")
            with self.map(region, write=True) as writable:
                self.fill(writable)
            self.call("POST", f"/v1/regions/{region['id']}/seal", {"checksum": True})
            mappings.append(self.map(region))
        kept = self.create(self.some_bytes(), name=f"kept{self.command['id']}", persist=True)
        with self.map(kept, write=True) as writable:
            self.fill(writable)
        self.call("POST", f"/v1/regions/{kept['id']}/seal", {"checksum": True})
        self.tell("sealed", session=self.session, kept=kept["id"])
        while True:
            for mapping in mappings:
                sum(mapping[0 : mapping.size() : mmap.PAGESIZE])

    def leasing(self):
        self.open()
        shared = self.command["shared"]
        path = f"/v1/regions/{shared['id']}/leases"
        mapping = self.map(shared)
        leases = [self.call("POST", path, {"ttl_ms": 60_000, "session": self.session}) for _ in range(3)]
        self.tell("leasing", session=self.session)
        while True:
            ended = leases.pop(0)
            self.call("DELETE", f"/v1/leases/{ended['id']}")
            leases.append(self.call("POST", path, {"ttl_ms": 60_000, "session": self.session}))
            for lease in leases:
                self.call("POST", f"/v1/leases/{lease['id']}/renew")
            mapping[0:1]

    def uploading(self):
        self.open()
        byte_size = self.random.choice([200_000, 8 * MIB])
        upload = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            region = self.create(byte_size)
            upload.close()
            upload = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            upload.connect(self.path)
            upload.sendall(
                f"PUT /v1/regions/{region['id']}/data HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Type: application/octet-stream\r\nContent-Length: {byte_size}\r\n\r\n".encode()
            )
            upload.sendall(bytes(byte_size // 2))
            self.tell("uploading", session=self.session)
            for _ in range(20):
                upload.sendall(bytes(byte_size // 100))
            self.call("DELETE", f"/v1/regions/{region['id']}")

    def claiming(self):
        """Gets the named region, or builds it if it is its turn."""
        self.open()
        name, byte_size = self.command["name"], self.command["byte_size"]
        key = f"{self.command['id']}"
        self.tell("waiting", session=self.session)
        while True:
            body = {"session": self.session, "key": key}
            path = f"/v1/models/default/regions/{name}/claim"
            answer = self.call("POST", path, body, {"Prefer": f"wait={CLAIM_WAIT_S}"})
            if answer["role"] == "builder":
                region = self.build(name, byte_size, answer["claim"])
                break
            region = answer["region"]
            if region is not None and region["state"] == "sealed":
                break
        try:
            mapping = self.map(region)
        except (NotAttached, FileNotFoundError):
            return self.tell("gone")
        self.tell("reading", name=name, region=region["id"])
        while True:
            sum(mapping[0 : mapping.size() : mmap.PAGESIZE])

    def build(self, name, byte_size, claim):
        self.tell("building", name=name)
        region = self.create(byte_size, name=name, linger_ms=self.command["linger_ms"], claim=claim)
        with self.map(region, write=True) as mapping:
            self.fill(mapping)
        # Here a driver that wants a builder dead has its time.
        time.sleep(self.command["build_s"])
        sealed = self.call("POST", f"/v1/regions/{region['id']}/seal", {"checksum": True})
        self.tell("built", name=name, region=region["id"])
        return sealed

    def forking(self):
        """Maps one region for reading and one for writing, and forks: the child keeps both, and may keep the socket."""
        self.open()
        sealed = self.create(100_000, name="sealed")
        self.call("POST", f"/v1/regions/{sealed['id']}/seal", {"checksum": True})
        read, written = self.map(sealed), self.map(self.create(200_000, name="written"), write=True)
        if os.fork() == 0:
            if not self.command["keeps_socket"]:
                self.hold.close()
                self.http.close()
            self.tell("child", session=self.session)
            while True:
                self.fill(written)
                read[0:1]
                time.sleep(0.001)
        self.tell("parent", session=self.session)
        while True:
            signal.pause()


def run(path, command):
    worker = Worker(path, command)
    worker.tell("started")
    try:
        getattr(worker, command["role"])()
    except Exception as error:  # whatever it is, the driver wants to see it
        worker.tell("failed", role=command["role"], error=repr(error)[:800])


def main():
    path = sys.argv[1]
    # The kernel reaps them: nobody here waits for a child.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        command = json.loads(line)
        if os.fork() == 0:
            devnull = os.open(os.devnull, os.O_RDONLY)
            os.dup2(devnull, 0)
            run(path, command)
            os._exit(0)


if __name__ == "__main__":
    main()
