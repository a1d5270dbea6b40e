"""The client: what a program says to one server. Regions are made, found and mapped here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, NoReturn

from ._allocation import Shape, to_changes, to_specs, without_none
from ._api import Api, Json
from ._copy import copy_all
from ._descriptor import DeleteResult, RegionDescriptor, VerifyResult
from ._endpoint import Endpoint
from ._event_stream import EventStream
from ._mapper import find_region, map_region, open_reference, to_access
from ._mapping import Access
from ._reference import TensorReference
from ._region import Region
from ._tensor import OpenedTensor
from ._transport import Transport

DEFAULT_MODEL = "default"
RETRY_SECONDS = 10.0

IfExists = Literal["fail", "attach", "replace"]
AnyRegion = str | RegionDescriptor | Region


class Client:
    """One server's client; ``connect`` makes it. Thread-safe, and safe to use in a child after ``fork``.

    Closing it closes its connections. Regions stay mapped and their memory valid; what asks the server (``seal``,
    ``refresh``) raises ``Closed`` then. Every method raises ``TensordError``s, and ``ServerUnavailable`` among them.
    A region is named by its name and model where it is looked up, and by its id, descriptor or ``Region`` elsewhere.
    """

    def __init__(self, endpoint: Endpoint, *, retry: float = RETRY_SECONDS) -> None:
        self._transport = Transport(endpoint, retry)
        self._api = Api(self._transport)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.endpoint.url

    def create(
        self,
        name: str | None,
        data: Any = None,
        *,
        shape: Shape | None = None,
        dtype: Any = None,
        tensors: Mapping[str, tuple[Any, Shape]] | None = None,
        model: str = DEFAULT_MODEL,
        ttl: float | None = None,
        persist: bool = False,
        if_exists: IfExists = "fail",
        labels: Mapping[str, str] | None = None,
    ) -> Region:
        """Makes a region and maps it for writing. Others can attach it at once, and see it sealed after ``seal``.

        What it holds is one of: ``data``, an array-like (numpy, torch on the CPU, nested lists), which becomes the
        tensor ``data``, or a mapping of names to array-likes, copied in; ``shape`` and ``dtype`` of a lone ``data``;
        or ``tensors``, names to ``(dtype, shape)``. The last two are zeros to be written. A dtype is safetensors'
        name, numpy's or torch's.

        Its owner decides its end and is required: ``ttl`` in seconds from now, or ``persist=True`` until it is deleted,
        which needs a name. ``name=None`` makes a region that is reached by id or reference only.

        ``if_exists`` says what a taken name means: ``"fail"``; ``"attach"``, which maps the region that is there if
        names, dtypes and shapes agree (for writing if it is open, else read-only) **without copying data**, and
        leaves ``created`` false; or ``"replace"``, which takes the name over when this region is sealed.

        If anything fails after the server made the region, it is deleted again. A create whose answer is lost is
        repeated only with ``if_exists="attach"``, since otherwise it could find its own region in the way. Raises
        ``NameTaken``, ``OwnerRequired``, ``OutOfMemory`` and its kinds, ``ValidationFailed``.
        """
        sources, specs = to_specs(data, shape, dtype, tensors)
        body: Json = {"model": model, "name": name, "tensors": specs, "if_exists": if_exists}
        answer = self._api.create_region(without_none(body | to_changes(ttl, persist, labels)))
        if not answer.created:
            return self._map(answer.region, None, writable=None)
        try:
            region = self._map(answer.region, None, writable=True, created=True)
            try:
                copy_all((region[source.name].bytes(), source) for source in sources)
            except BaseException:
                region.close()
                raise
        except BaseException:
            # Nobody may find a half-written region under the name; the failure itself is what counts.
            with contextlib.suppress(Exception):
                self._api.delete_region(answer.region.id)
            raise
        return region

    def attach(
        self,
        region: str | RegionDescriptor,
        *,
        model: str = DEFAULT_MODEL,
        timeout: float = 0.0,
        writable: bool = False,
        strict: bool = False,
    ) -> Region:
        """Maps a region that exists, by its name in ``model``, or by a descriptor in hand, which costs no request.

        ``timeout=0`` maps it at once, open or sealed; an open one shows what its writers write. With a ``timeout`` in
        seconds a reader waits until the region is there *and sealed*, a writer until it is there. ``writable=True``
        maps an open region for writing. Otherwise it is read-only: ``numpy()`` is ``writeable=False``, and in-place
        torch operations stay private to this process; ``strict=True`` makes any such write a crash instead, and
        forbids ``torch()``.

        Raises ``RegionNotFound``, ``RegionNotSealed`` if the time ends with an open region, ``RegionSealed`` for a
        writer, ``WrongNamespace`` if this process sees another file system than the server, ``AccessDenied``.
        """
        if isinstance(region, RegionDescriptor):
            return self._map(region, None, writable=writable, strict=strict)

        def find() -> RegionDescriptor:
            return find_region(self._api, model, region, timeout, writable=writable)

        return self._map(find(), find, writable=writable, strict=strict)

    def open(self, ref: TensorReference, *, writable: bool = False, strict: bool = False) -> OpenedTensor:
        """Maps one tensor from a reference. Asks no server, so it works while there is none.

        Flags as in ``attach``. The caller closes it. Raises ``StaleRef`` if the file is not the one meant,
        ``RegionSealed`` for a writer, ``AccessDenied``.
        """
        return open_reference(ref, to_access(writable=writable, strict=strict))

    def get(self, name: str, *, model: str = DEFAULT_MODEL) -> RegionDescriptor:
        """The region of that name, as it is now. Raises ``RegionNotFound``."""
        return self._api.region_by_name(model, name)

    def get_by_id(self, region_id: str) -> RegionDescriptor:
        """The region with that id, as it is now. Raises ``RegionNotFound``."""
        return self._api.region(region_id)

    def list(
        self,
        *,
        model: str | None = None,
        name: str | None = None,
        state: str | None = None,
        label: tuple[str, str] | None = None,
    ) -> Iterator[RegionDescriptor]:
        """All regions that match, page by page as they are consumed. ``label`` is a key and its value."""
        query = {"model": model, "name": name, "state": state, "label": None if label is None else "=".join(label)}
        return self._api.regions(without_none(query))

    def patch(
        self,
        region: AnyRegion,
        *,
        ttl: float | None = None,
        persist: bool = False,
        labels: Mapping[str, str | None] | None = None,
    ) -> RegionDescriptor:
        """Changes a region's owner, or its labels: those named, ``None`` removing one. ``ttl`` in seconds from now."""
        return self._api.patch_region(_id_of(region), without_none(to_changes(ttl, persist, labels)))

    def verify(self, region: AnyRegion) -> VerifyResult:
        """Has the server recompute a sealed region's checksum and compare it with the one taken at its seal.

        Raises ``RegionNotSealed``.
        """
        return self._api.verify(_id_of(region))

    def delete(self, region: AnyRegion) -> DeleteResult:
        """Deletes a region. Its name is free at once; its memory when the last process that maps it lets go."""
        return self._api.delete_region(_id_of(region))

    def models(self) -> Iterator[Json]:
        """All models, as the server's JSON objects."""
        return self._api.models()

    def model(self, name: str) -> Json:
        """One model with its books. Raises ``ModelNotFound``."""
        return self._api.model(name)

    def create_model(self, name: str, *, memory_limit_bytes: int | None = None) -> Json:
        """Registers a model, a pool with a limit of its own. Raises ``ModelExists``."""
        body: Json = {"name": name}
        if memory_limit_bytes is not None:
            body["memory_limit_bytes"] = memory_limit_bytes
        return self._api.create_model(body)

    def patch_model(self, name: str, *, memory_limit_bytes: int | None) -> Json:
        """Changes a model's limit; ``None`` removes it. Raises ``ModelNotFound``."""
        return self._api.patch_model(name, {"memory_limit_bytes": memory_limit_bytes})

    def delete_model(self, name: str, *, drain: bool = False) -> DeleteResult:
        """Unregisters a model; ``drain=True`` deletes its regions with it. Raises ``ModelInUse``, ``ModelNotFound``."""
        return self._api.delete_model(name, drain=drain)

    def stats(self) -> Json:
        """The server's books: bytes, inodes, regions by state, models."""
        return self._api.stats()

    def events(
        self,
        *,
        after: str | None = None,
        model: str | None = None,
        types: str | Iterable[str] | None = None,
        reconnect: bool = True,
    ) -> EventStream:
        """Follows what happens to regions and models: everything from now on, or after the event with the id ``after``.

        When this returns the stream has begun: whatever changes from here on will come, so list *then*, and follow.
        ``model`` narrows it to one model and its regions, ``types`` to types with one of these prefixes
        (``"tensord.region."``).

        The stream resumes by itself after a cut connection and through restarts of the server, however long they take;
        ``reconnect=False`` ends it with ``ServerUnavailable`` at the first cut instead. An event of the type
        ``tensord.stream.gap`` says that some are not kept any more, or that nobody knows after a crash: list again.
        Raises ``ServerUnavailable``, ``ValidationFailed``, ``TooManyRequests``.
        """
        prefixes = types if types is None or isinstance(types, str) else ",".join(types)
        query = without_none({"after": after, "model": model, "types": prefixes})
        return EventStream(self._transport, query, reconnect=reconnect)

    def close(self) -> None:
        """Closes the connections; event streams raise ``Closed``. Safe to call twice. Regions stay mapped."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tensord.Client {self.url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied: connect again")

    def _map(
        self,
        region: RegionDescriptor,
        ask: Callable[[], RegionDescriptor] | None,
        *,
        writable: bool | None,
        strict: bool = False,
        created: bool = False,
    ) -> Region:
        """Maps a region, which ``ask`` gets anew, else its id does. ``writable=None``: for writing while it is open."""

        def choose(current: RegionDescriptor) -> Access:
            return to_access(writable=current.state == "open" if writable is None else writable, strict=strict)

        mapped, attachment = map_region(region, ask or (lambda: self._api.region(region.id)), choose)
        return Region(self._api, mapped, attachment, created=created)


def _id_of(region: AnyRegion) -> str:
    return region if isinstance(region, str) else region.id
