"""Asks a server at a steady rate, request after request, and reports how long each answer took.

Each request has its time in a fixed schedule, and its latency counts from that time: one that had to wait because the
answer before it was late counts with its wait (else a server that stalls would be asked less, and look better).

Usage: steady_requests.py <Unix socket or TCP port> <requests a second> <path>…
Each line on standard input is a label for the requests from then on; the empty label is not kept. At its end the
latencies are printed as one JSON object: label -> list of microseconds.
"""

import gc
import json
import re
import select
import socket
import sys
import time

from target import connect, to_host

CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def exchange(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = connection.recv(65536)
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not a 200: {answer!r}")
    length = CONTENT_LENGTH.search(answer, 0, end)
    while len(answer) < end + 4 + int(length[1]):
        answer += connection.recv(65536)


def main() -> None:
    target, rate, *paths = sys.argv[1:]
    host = to_host(target)
    requests = [f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for path in paths]
    period = 1 / float(rate)
    connection = connect(target)
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    latencies: dict[str, list[float]] = {}
    kept: list[float] | None = None
    gc.disable()
    due = time.perf_counter()
    number = 0
    while True:
        if stdin.poll(0):
            line = sys.stdin.readline()
            if line == "":
                break
            label = line.rstrip("\n")
            kept = latencies.setdefault(label, []) if label else None
        due += period
        number += 1
        time.sleep(max(0.0, due - time.perf_counter()))
        exchange(connection, requests[number % len(requests)])
        if kept is not None:
            kept.append((time.perf_counter() - due) * 1e6)
    print(json.dumps({label: [round(value, 1) for value in values] for label, values in latencies.items()}))


main()
