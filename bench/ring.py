"""The Python half of ring.ts: a request and a result of some bytes between two processes, through a ring and by HTTP.

Usage: ring.py <url> <byte_size>. Prints one JSON object of lists, one number a batch: CPU seconds of both and seconds a request.

Every way has the same work in it, one pass by each process: the caller writes the request's bytes, which stands for
making them, and the worker makes the result from them, byte for byte. Through the ring both write where the other reads;
by HTTP each writes into memory of its own, and sends it. ``work`` is that work alone, without a way between.
"""

import http.client
import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensord

BATCHES = 30
WARM_UP = 3
REQUESTS = 20


class Handler(http.server.BaseHTTPRequestHandler):
    """Makes the result, of a body that it receives into memory kept from request to request."""

    protocol_version = "HTTP/1.1"
    body = bytearray()
    result = np.empty(0, np.uint8)

    def do_POST(self):
        size = int(self.headers["content-length"])
        if len(Handler.body) != size:
            Handler.body = bytearray(size)
            Handler.result = np.empty(size, np.uint8)
        view = memoryview(Handler.body)
        read = 0
        while read < size:
            read += self.rfile.readinto(view[read:])
        np.copyto(Handler.result, np.frombuffer(Handler.body, np.uint8))
        self.send_response(200)
        self.send_header("content-length", str(size))
        self.end_headers()
        self.wfile.write(memoryview(Handler.result))

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


class UnixServer(socketserver.UnixStreamServer):
    def handle_error(self, *_):
        raise


def serve(control):
    """The worker: does what comes by the control socket; requests by HTTP come by a socket of their own."""
    client = tensord.connect("unix:///nobody/listens.sock")
    rings = client.rings()
    for line in control:
        what, *rest = json.loads(line)
        if what in ("ring", "open"):
            request, result = map(tensord.TensorReference.from_dict, rest)
            opener = rings if what == "ring" else client
            with opener.open(request) as x, opener.open(result, writable=True) as y:
                np.copyto(y.numpy(), x.numpy())
            answer = "done"
        elif what == "work":
            received, made = np.ones(rest[0], np.uint8), np.ones(rest[0], np.uint8)
            answer = time.process_time()
            for _ in range(REQUESTS):
                np.copyto(made, received)
            answer = time.process_time() - answer
        elif what == "http":
            with UnixServer(rest[0], Handler) as server:
                say(control, "listens")
                # One connection: it ends with the caller's.
                server.handle_request()
            os.unlink(rest[0])
            continue
        else:
            answer = time.process_time()
        say(control, answer)


def say(control, value):
    control.write(json.dumps(value) + "\n")
    control.flush()


def ask(control, *value):
    say(control, value)
    return json.loads(control.readline())


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def by_slots(control, what, ring, source):
    for _ in range(REQUESTS):
        with ring.acquire() as request, ring.acquire() as result:
            np.copyto(request.array(source.shape, source.dtype), source)
            result.array(source.shape, source.dtype)
            ask(control, what, request.lend().to_dict(), result.lend().to_dict())
            result.take_back()
            check(result.array(source.shape, source.dtype), source)


def by_http(control, path, source):
    ask(control, "http", path)
    connection = UnixConnection(path)
    made = np.empty_like(source)
    body = memoryview(made).cast("B")
    received = bytearray(source.nbytes)
    for _ in range(REQUESTS):
        np.copyto(made, source)
        connection.request("POST", "/", body)
        response = connection.getresponse()
        view = memoryview(received)
        read = 0
        while read < len(received):
            read += response.readinto(view[read:])
        response.read()
        check(np.frombuffer(received, source.dtype), source)
    connection.close()


def check(result, source):
    assert result[0] == source[0] and result[-1] == source[-1]


def main(url, byte_size):
    source = np.random.default_rng(0).standard_normal(byte_size // 4, np.float32)
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    control = ours.makefile("rw")
    with tempfile.TemporaryDirectory() as folder, tensord.connect(url, wait=10) as client:
        path = str(Path(folder, "http.sock"))
        with client.ring(slots=4, slot_bytes=byte_size, ttl=600) as ring:
            ways = {
                "ring": lambda: by_slots(control, "ring", ring, source),
                "open": lambda: by_slots(control, "open", ring, source),
                "http": lambda: by_http(control, path, source),
            }
            times = {way: {"cpu": [], "elapsed": []} for way in ways} | {"work": {"cpu": []}}
            made = np.ones_like(source)
            for batch in range(WARM_UP + BATCHES):
                for way, call in ways.items():
                    cpu, elapsed = time.process_time() + ask(control, "cpu"), time.perf_counter()
                    call()
                    elapsed = time.perf_counter() - elapsed
                    cpu = time.process_time() + ask(control, "cpu") - cpu
                    if batch >= WARM_UP:
                        times[way]["cpu"].append(cpu / REQUESTS)
                        times[way]["elapsed"].append(elapsed / REQUESTS)
                cpu = time.process_time()
                for _ in range(REQUESTS):
                    np.copyto(made, source)
                cpu = time.process_time() - cpu + ask(control, "work", byte_size)
                if batch >= WARM_UP:
                    times["work"]["cpu"].append(cpu / REQUESTS)
    control.close()
    ours.close()
    assert worker.wait() == 0
    print(json.dumps(times))


if len(sys.argv) == 2:
    serve(socket.socket(fileno=int(sys.argv[1])).makefile("rw"))
else:
    main(sys.argv[1], int(sys.argv[2]))
