"""Where a server listens: the path of a Unix socket, or a port of loopback TCP."""

import socket


def connect(target: str) -> socket.socket:
    if not target.isdigit():
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(target)
        return connection
    connection = socket.create_connection(("127.0.0.1", int(target)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def to_host(target: str) -> str:
    """What the Host header says."""
    return f"localhost:{target}" if target.isdigit() else "localhost"
