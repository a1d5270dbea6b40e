"""Where the server is: from an argument, the environment, or the instance's socket. It connects to nothing."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensord._errors import ValidationFailed

from .token import Token, find_token

# sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)).
MAX_SOCKET_PATH_BYTES = 107
MAX_PORT = 65_535

# An address in one of its forms, as Node's client has them (clients/addresses.json): each language's parser of URLs
# takes another set of mistakes for hosts.
_FORMS = re.compile(
    r"unix:(?://)?(?P<path>/(?!/)[^?#\x00-\x1f\x7f-\x9f]*)"
    r"|http://(?P<host>\[[0-9a-f:.]+\]|[\w-]+(?:\.[\w-]+)*)(?::(?P<port>[0-9]{0,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
# Around an address: they come with what is read from a file.
_BLANKS = " \t\r\n\f\v"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address: ``path`` of a Unix socket, or else ``host`` and ``port``. ``origin`` says where it was found.

    ``token`` says there who asks, if anything does.
    """

    origin: str
    path: str | None = None
    host: str = "localhost"
    port: int = 80
    token: Token | None = None

    @property
    def url(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def authorization(self) -> dict[str, str]:
        """The header that says who asks. Raises ``ValidationFailed`` if the token's file has none."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token.read()}"}


def find_endpoint(
    url: str | None = None, environ: Mapping[str, str] | None = None, token: str | None = None
) -> Endpoint:
    """The address to use: ``url``, else ``TENSORD_URL``, else
    ``<TENSORD_SHM_DIR>/tensord.<TENSORD_INSTANCE>/http.sock``; and the token: ``token``, else ``TENSORD_TOKEN``,
    else what the file ``TENSORD_TOKEN_FILE`` has.

    Raises ``ValidationFailed`` if one of them is none.
    """
    environ = os.environ if environ is None else environ
    return replace(_find_address(url, environ), token=find_token(token, environ))


def how_to_reach(environ: Mapping[str, str] | None = None) -> str:
    """What to do where no server answers. In a pod nobody starts one, but its volume may not be mounted here."""
    environ = os.environ if environ is None else environ
    otherwise = "set TENSORD_URL to http://host:port or unix:///path"
    # The kubelet sets it in every container.
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return (
            "mount the sidecar's volume in this container, by the subPath and at the path that TENSORD_SHM_DIR names, "
            f"and look whether the sidecar runs (kubectl logs <pod> -c tensord), or {otherwise}"
        )
    return f"start the server with `tensord serve` (`npm start` in its repository), or {otherwise}"


def _find_address(url: str | None, environ: Mapping[str, str]) -> Endpoint:
    if url is not None:
        return _parse_url(url.strip(_BLANKS), "the argument url")
    from_environment = environ.get("TENSORD_URL", "").strip(_BLANKS)
    if from_environment:
        return _parse_url(from_environment, "TENSORD_URL")
    instance = environ.get("TENSORD_INSTANCE") or "default"
    directory = environ.get("TENSORD_SHM_DIR") or "/dev/shm"
    if re.fullmatch(r"[a-z0-9-]{1,32}", instance) is None:
        raise ValidationFailed(f"Cannot use TENSORD_INSTANCE {instance!r}: want 1 to 32 of a-z, 0-9 and -")
    origin = f"TENSORD_URL is not set, so the socket of instance {instance!r} in {directory} was tried"
    return _unix_endpoint(f"{directory.rstrip('/')}/tensord.{instance}/http.sock", origin)


def _parse_url(url: str, origin: str) -> Endpoint:
    form = _FORMS.fullmatch(url)
    if form is None:
        raise _not_an_address(url, origin)
    if form["path"] is not None:
        return _unix_endpoint(form["path"], f"it comes from {origin}")
    port = int(form["port"] or 80)
    try:
        host = _to_host(form["host"].lower())
    except (OSError, ValueError) as error:
        raise _not_an_address(url, origin) from error
    if not 0 < port <= MAX_PORT:
        raise _not_an_address(url, origin)
    return Endpoint(f"it comes from {origin}", host=host, port=port)


def _to_host(host: str) -> str:
    """The host in the one spelling of its address: 127.1 is 127.0.0.1."""
    if host.startswith("["):
        return str(ipaddress.IPv6Address(host[1:-1]))
    last = host.rpartition(".")[2]
    # As a URL has it: what ends in a number is an IPv4 address, or wrong.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        return socket.inet_ntoa(socket.inet_aton(host))
    # Refuses a label that no resolver takes.
    host.encode("idna")
    return host


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
