"""Moves a region's data over a Unix socket as cheaply as a client can: what it reads it drops, what it sends is one block.

Usage: data_client.py <socket>. Each line on standard input is a method, a path and a number of bytes; the seconds that
it took are printed. It is nice, so that on a machine with few cores it takes none away from the server or from others.
"""

import os
import socket
import sys
import time

BLOCK = memoryview(bytearray(os.urandom(1 << 20)))


def read_head(connection: socket.socket) -> int:
    """How many bytes of the body came with the head."""
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(4096)
        if not piece:
            raise SystemExit(f"the connection ended after {answer[:200]!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not a 200: {answer[:200]!r}")
    return len(answer) - end - 4


def move(path: str, method: str, target: str, size: int) -> float:
    begin = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        length = f"Content-Length: {size}\r\n" if method == "PUT" else ""
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode())
        if method == "PUT":
            for sent in range(0, size, len(BLOCK)):
                connection.sendall(BLOCK[: size - sent])
            read_head(connection)
        else:
            received = read_head(connection)
            while received < size:
                piece = connection.recv_into(BLOCK)
                if piece == 0:
                    raise SystemExit(f"the connection ended after {received} bytes")
                received += piece
    return time.perf_counter() - begin


def main() -> None:
    path = sys.argv[1]
    os.nice(10)
    for line in sys.stdin:
        method, target, size = line.split()
        print(move(path, method, target, int(size)), flush=True)


main()
