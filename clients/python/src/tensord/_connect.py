"""The way in: ``connect``, and the one-call forms that need no client in hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, cast, overload

from ._api import Api
from ._arguments.checked import checked
from ._arguments.kinds import ByteCount, Labels, Name, ProgramName, Seconds, Shape, Text, Timeout, Version
from ._client import DEFAULT_MODEL, RETRY_SECONDS, Client, Names
from ._errors import ServerUnavailable, ValidationFailed
from ._region.group import Group
from ._region.path_hold import PathHold
from ._region.region import Region
from ._region.requests import HugePages, IfExists, OnFull, StorageKind
from ._session.holding import HoldBy
from ._tensor.dtype import parse_dtype
from ._transport.endpoint import Endpoint, find_endpoint
from ._transport.transport import Transport
from ._wire.region import RegionDescriptor

READY_POLL_SECONDS = 0.05

_clients: dict[Endpoint, Client] = {}


@checked
def connect(
    url: Text | None = None,
    *,
    token: Text | None = None,
    wait: Timeout = 0.0,
    retry: Timeout = RETRY_SECONDS,
    session: bool = True,
    name: ProgramName | None = None,
    quota_bytes: ByteCount | None = None,
    session_ttl: Seconds | None = None,
    hold: HoldBy | None = None,
) -> Client:
    """A client of the server at ``url``, else at ``TENSORD_URL`` (``http://host:port`` or ``unix:///path``), else on
    the Unix socket ``<TENSORD_SHM_DIR>/tensord.<TENSORD_INSTANCE>/http.sock`` (``/dev/shm`` and ``default``).

    ``token`` says who asks where the server wants to know, else ``TENSORD_TOKEN`` does, else the file
    ``TENSORD_TOKEN_FILE``, which is read again as it changes. It is sent as a header and never shown.

    Nothing is sent before the first call, unless ``wait`` gives a number of seconds: then it returns when the server is
    ready. ``retry`` bounds, in seconds, how long a call waits for a server that was there before, as in a restart.

    ``session=False`` makes a client that opens no session. Otherwise ``name`` is what the server calls this program
    (the script's name), ``quota_bytes`` how much the session may own, ``session_ttl`` how many seconds (30) it lives on
    while the server is away or cannot be reached.

    ``hold`` says what holds the session: ``"websocket"``, or ``"broker"``, a connection to the server's broker, which
    needs no WebSocket. By default it is a WebSocket, and the broker where none comes through or where the server
    knows this process by its uid alone: then the broker also issues the token that is sent from then on.

    Raises ``ServerUnavailable`` when the wait is over, ``ValidationFailed`` for what is no address or no token.
    """
    endpoint = find_endpoint(url, token=token)
    if wait > 0:
        _wait_until_ready(endpoint, wait)
    return Client(
        endpoint,
        retry=retry,
        session=session,
        name=name,
        quota_bytes=quota_bytes,
        session_ttl=session_ttl,
        hold=hold,
    )


@overload
def attach(
    region: Name | RegionDescriptor,
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    timeout: Timeout = 0.0,
    writable: bool = False,
    strict: bool = False,
) -> Region: ...
@overload
def attach(
    region: Names,
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    timeout: Timeout = 0.0,
    writable: bool = False,
    strict: bool = False,
) -> Group: ...
@checked
def attach(
    region: Name | RegionDescriptor | Names,
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    timeout: Timeout = 0.0,
    writable: bool = False,
    strict: bool = False,
) -> Region | Group:
    """``Client.attach`` on the server that the environment names."""
    return process_client().attach(
        region, model=model, version=version, timeout=timeout, writable=writable, strict=strict
    )


@checked
def hold(
    region: Name | RegionDescriptor,
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    timeout: Timeout = 0.0,
) -> PathHold:
    """``Client.hold`` on the server that the environment names: ``with tensord.hold("weights") as path:``."""
    return process_client().hold(region, model=model, version=version, timeout=timeout)


@checked
def create_shared_tensor(
    name: Name,
    array: Any,
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    ttl: Seconds | None = None,
    linger: Seconds | None = None,
    handoff: Seconds | None = None,
    persist: bool = False,
    if_exists: IfExists = "fail",
    labels: Labels | None = None,
    storage: StorageKind | None = None,
    private: bool = False,
    huge_pages: HugePages | None = None,
) -> Region:
    """``Client.create`` of one array on the server that the environment names. It is open: write on, then ``seal``."""
    return process_client().create(
        name,
        {"data": array},
        model=model,
        version=version,
        ttl=ttl,
        linger=linger,
        handoff=handoff,
        persist=persist,
        if_exists=if_exists,
        labels=labels,
        storage=storage,
        private=private,
        huge_pages=huge_pages,
    )


@checked
def get_or_create(
    name: Name,
    build: Callable[[], Any],
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    linger: Seconds | None = None,
    handoff: Seconds | None = None,
    ttl: Seconds | None = None,
    persist: bool = False,
    timeout: Timeout | None = None,
    rebuild: bool = False,
    checksum: bool = False,
    strict: bool = False,
    evictable: bool = False,
    on_full: OnFull = "fail",
    deadline: Seconds | None = None,
    labels: Labels | None = None,
    storage: StorageKind | None = None,
    private: bool = False,
    huge_pages: HugePages | None = None,
) -> Region:
    """``Client.get_or_create`` on the server that the environment names, with the same options."""
    return process_client().get_or_create(
        name,
        build,
        model=model,
        version=version,
        linger=linger,
        handoff=handoff,
        ttl=ttl,
        persist=persist,
        timeout=timeout,
        rebuild=rebuild,
        checksum=checksum,
        strict=strict,
        evictable=evictable,
        on_full=on_full,
        deadline=deadline,
        labels=labels,
        storage=storage,
        private=private,
        huge_pages=huge_pages,
    )


@checked
def attach_shared_tensor(
    name: Name,
    shape: Shape | None = None,
    dtype: Any = None,
    *,
    model: Name = DEFAULT_MODEL,
    version: Version | None = None,
    timeout: Timeout = 0.0,
    writable: bool = False,
) -> Region:
    """``attach`` of a region with one tensor, which must have that shape and dtype if they are given.

    Raises ``ValidationFailed`` if it has others, and what ``Client.attach`` raises.
    """
    region = attach(name, model=model, version=version, timeout=timeout, writable=writable)
    try:
        _check_lone(region, shape, dtype)
    except BaseException:
        region.close()
        raise
    return region


def _check_lone(region: Region, shape: Shape | None, dtype: Any) -> None:
    if len(region) != 1:
        raise ValidationFailed(
            f"Cannot attach {region.descriptor.shown} as one tensor: it has {len(region)}",
            hint="use attach(name)[tensor]",
        )
    (tensor,) = region.tensors.values()
    # A tuple by now, as any shape is that was checked.
    want_shape = tensor.shape if shape is None else cast("tuple[int, ...]", shape)
    want_dtype = tensor.dtype if dtype is None else parse_dtype(dtype)
    if (tensor.dtype, tensor.shape) != (want_dtype, want_shape):
        raise ValidationFailed(
            f"Cannot attach {region.descriptor.shown}: its tensor is {tensor.dtype} {list(tensor.shape)}, "
            f"want {want_dtype} {list(want_shape)}"
        )


def process_client() -> Client:
    """This process's client of the server that the environment names."""
    # One a server and process: the environment may change, as in tests, and then the old one's regions still need it.
    endpoint = find_endpoint()
    return _clients.get(endpoint) or _clients.setdefault(endpoint, Client(endpoint))


def _wait_until_ready(endpoint: Endpoint, wait: float) -> None:
    deadline = time.monotonic() + wait
    with contextlib.closing(Transport(endpoint, retry_seconds=0.0)) as transport:
        api = Api(transport)
        while True:
            try:
                if api.is_ready():
                    return
                error = ServerUnavailable(f"Cannot use tensord on {endpoint.url}: it was not ready within {wait:g} s")
            except ServerUnavailable as unavailable:
                error = unavailable
            if time.monotonic() >= deadline:
                raise error
            time.sleep(READY_POLL_SECONDS)
