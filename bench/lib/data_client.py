"""Moves a region's data over a socket as cheaply as a client can: what it reads it drops, what it sends is one block.

Usage: data_client.py <Unix socket or TCP port>. Each line on standard input is GET, PUT or CHUNKED (a PUT that does not
say its length), a path and a number of bytes; the seconds that it took are printed. It is nice, so that on a machine with
few cores it takes none away from the server or from others.
"""

import os
import socket
import sys
import time

from target import connect, to_host

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


def send(connection: socket.socket, size: int, is_chunked: bool) -> None:
    for sent in range(0, size, len(BLOCK)):
        block = BLOCK[: size - sent]
        if not is_chunked:
            connection.sendall(block)
            continue
        connection.sendall(f"{len(block):x}\r\n".encode())
        connection.sendall(block)
        connection.sendall(b"\r\n")
    if is_chunked:
        connection.sendall(b"0\r\n\r\n")


def move(target: str, how: str, path: str, size: int) -> float:
    method = "GET" if how == "GET" else "PUT"
    framing = {
        "GET": "",
        "PUT": f"Content-Length: {size}\r\n",
        "CHUNKED": "Transfer-Encoding: chunked\r\n",
    }[how]
    begin = time.perf_counter()
    with connect(target) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {to_host(target)}\r\n{framing}\r\n".encode())
        if method == "PUT":
            send(connection, size, how == "CHUNKED")
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
    target = sys.argv[1]
    os.nice(10)
    for line in sys.stdin:
        how, path, size = line.split()
        print(move(target, how, path, int(size)), flush=True)


main()
