"""Where the server is: from an argument, the environment, or the instance's socket. It connects to nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tensord._errors import ValidationFailed

# sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)).
MAX_SOCKET_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address: ``path`` of a Unix socket, or else ``host`` and ``port``. ``origin`` says where it was found."""

    origin: str
    path: str | None = None
    host: str = "localhost"
    port: int = 80

    @property
    def url(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def find_endpoint(url: str | None = None, environ: Mapping[str, str] | None = None) -> Endpoint:
    """The address to use: ``url``, else ``TENSORD_URL``, else
    ``<TENSORD_SHM_DIR>/tensord.<TENSORD_INSTANCE>/http.sock``.

    Raises ``ValidationFailed`` if it is none.
    """
    environ = os.environ if environ is None else environ
    if url is not None:
        return _parse_url(url, "the argument url")
    if environ.get("TENSORD_URL"):
        return _parse_url(environ["TENSORD_URL"], "TENSORD_URL")
    instance = environ.get("TENSORD_INSTANCE") or "default"
    directory = environ.get("TENSORD_SHM_DIR") or "/dev/shm"
    if re.fullmatch(r"[a-z0-9-]{1,32}", instance) is None:
        raise ValidationFailed(f"Cannot use TENSORD_INSTANCE {instance!r}: want 1 to 32 of a-z, 0-9 and -")
    origin = f"TENSORD_URL is not set, so the socket of instance {instance!r} in {directory} was tried"
    return _unix_endpoint(f"{directory.rstrip('/')}/tensord.{instance}/http.sock", origin)


def _parse_url(url: str, origin: str) -> Endpoint:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _not_an_address(url, origin) from error
    bare = not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/") and bare:
        return _unix_endpoint(parts.path, f"it comes from {origin}")
    if parts.scheme == "http" and parts.hostname and parts.path in ("", "/") and bare:
        return Endpoint(f"it comes from {origin}", host=parts.hostname, port=80 if port is None else port)
    raise _not_an_address(url, origin)


def _unix_endpoint(path: str, origin: str) -> Endpoint:
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise ValidationFailed(
            f"Cannot connect to {path}: the path has {size} bytes, want at most {MAX_SOCKET_PATH_BYTES} (unix(7))",
            hint="choose a shorter TENSORD_SHM_DIR or TENSORD_INSTANCE",
        )
    return Endpoint(origin, path=path)


def _not_an_address(url: str, origin: str) -> ValidationFailed:
    return ValidationFailed(
        f"Cannot use {url!r} of {origin}: it is no server's address", hint="want http://host:port or unix:///path"
    )
