"""How much of a TCP connection the kernel keeps for a server that does not turn to it, in either direction.

Usage: kernel_keeps.py <port> <the server's pid> <GET or PUT> <path> <bytes of the body>. A quarter of the body passes, so
that the kernel has made its buffers as large as it will; then the server is stopped, and what still goes in or comes
out is what the kernel kept. That is done a few times, since the buffers may be full, or empty, as it happens to stop;
the most is printed. The client's own buffers are as small as they can be.
"""

import os
import signal
import socket
import sys
import time

SMALLEST = 4096
BLOCK = bytes(65536)
STILL_SECONDS = 0.3
TIMES = 3


def drain(step) -> int:
    """The sum of what `step` moves until it moves nothing for a while."""
    total = 0
    still_since = time.monotonic()
    while time.monotonic() - still_since < STILL_SECONDS:
        try:
            moved = step()
        except BlockingIOError:
            time.sleep(0.01)
            continue
        total += moved
        still_since = time.monotonic()
    return total


def main() -> None:
    port, pid, method, path, size = sys.argv[1:]
    connection = socket.socket()
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, SMALLEST)
    connection.connect(("127.0.0.1", int(port)))
    length = f"Content-Length: {size}\r\n" if method == "PUT" else ""
    connection.sendall(
        f"{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{length}\r\n".encode()
    )

    def step() -> int:
        return (
            connection.send(BLOCK) if method == "PUT" else len(connection.recv(65536))
        )

    passed, most = 0, 0
    for time_around in range(TIMES):
        connection.setblocking(True)
        while passed < int(size) * (2 + time_around) // 8:
            passed += step()
        os.kill(int(pid), signal.SIGSTOP)
        try:
            connection.setblocking(False)
            kept = drain(step)
        finally:
            os.kill(int(pid), signal.SIGCONT)
        passed += kept
        most = max(most, kept)
    print(most)


main()
