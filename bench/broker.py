"""The Python half of broker.ts: a descriptor through the broker, and from another process that does nothing but send one.

Usage: broker.py <broker's socket> <region's id> <held> <server's pid> <cores>. Prints one JSON object of lists of microseconds;
`held` connections stay open beside the one that asks. Who asks and who answers share one core, or have one of two each: to wake
an idle core costs more than all the rest, so that the placement is given and not left to chance.
"""

import json
import os
import socket
import sys
import time

ROUNDS = 4000
TURN = 100
WARM_UP = 1000


def ask(connection, request):
    connection.send(request)
    frame, fds, flags, _ = socket.recv_fds(connection, 65536, 4, socket.MSG_CMSG_CLOEXEC)
    for fd in fds:
        os.close(fd)
    return frame, len(fds), flags


def serve_bare(connection, path):
    """The other process: for each message one descriptor of a file, as it is."""
    fd = os.open(path, os.O_RDONLY)
    answer = b"x" * 700
    while connection.recv(65536):
        socket.send_fds(connection, [answer], [fd])


def serve_opening(connection, path):
    """The same, with a description of its own each time, as is needed for a lease."""
    answer = b"x" * 700
    while connection.recv(65536):
        fd = os.open(path, os.O_RDONLY)
        socket.send_fds(connection, [answer], [fd])
        os.close(fd)


def pin(pid, core):
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def start(serve, core):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        pin("self", core)
        try:
            serve(theirs, "/dev/null")
        finally:
            os._exit(0)
    theirs.close()
    return ours


def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    ask(connection, b'{"id":1,"op":"hello","v":1}')
    return connection


def main():
    path, region, held, server, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    cores = sorted(os.sched_getaffinity(0))
    asking, answering = cores[0], cores[count - 1]
    pin("self", asking)
    pin(server, answering)
    request = json.dumps({"id": 2, "op": "attach", "region": region, "access": "ro"}).encode()
    ways = {"bare": start(serve_bare, answering), "opening": start(serve_opening, answering), "attach": connect(path)}
    others = [connect(path) for _ in range(held)]
    for connection in ways.values():
        for _ in range(WARM_UP):
            frame, count, flags = ask(connection, request)
            if count != 1 or flags != 0:
                raise SystemExit(f"no descriptor came: {frame!r}")
    times = {way: [] for way in ways}
    for _ in range(ROUNDS // TURN):
        for way, connection in ways.items():
            for _ in range(TURN):
                begin = time.perf_counter_ns()
                ask(connection, request)
                times[way].append((time.perf_counter_ns() - begin) / 1000)
    for connection in [*ways.values(), *others]:
        connection.close()
    print(json.dumps(times))


if __name__ == "__main__":
    main()
