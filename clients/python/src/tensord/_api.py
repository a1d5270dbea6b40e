"""The server's routes, one method each: JSON in, records out, problems raised. No mapping and no waiting loops.

Bodies carry only what the caller gave, so that the server's defaults and refusals stay the server's.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

from ._arguments.kinds import NAME_KIND
from ._errors import (
    ElasticPoolNotFound,
    RegionNotFound,
    RegionSealed,
    ServerFault,
    ServerUnavailable,
    ValidationFailed,
    from_problem,
)
from ._transport.broker import Broker
from ._transport.transport import ANSWER_SECONDS, Download, Reply, Transport
from ._wire.device import Device, DeviceList, parse_device, parse_devices
from ._wire.elastic_pool import (
    Compacted,
    MappedRun,
    PoolStatistics,
    Trimmed,
    parse_compacted,
    parse_mapped_run,
    parse_pool_statistics,
    parse_trimmed,
)
from ._wire.eviction import Eviction, parse_eviction
from ._wire.model import Model, parse_model
from ._wire.operation import OperationDescriptor, parse_operation
from ._wire.reading import read
from ._wire.region import (
    Deletion,
    RegionDescriptor,
    Verification,
    parse_deletion,
    parse_descriptor,
    parse_verification,
    show_version,
)
from ._wire.residency import Residency, parse_flushed, parse_residency
from ._wire.session import Lease, SessionDescriptor, SessionEnd, parse_lease, parse_session, parse_session_end
from ._wire.stats import Stats, parse_stats

if TYPE_CHECKING:
    from ._wire import schemas

# Allocating, checksumming and freeing take time by the gigabyte.
LONG_SECONDS = 600.0
LIST_PAGE = 1000
# The longest that the server takes. While its session is held, a lease does not run out.
LEASE_TTL_MS = 24 * 3600 * 1000
# For who can do without an answer: a server that is stopped gives none.
IMPATIENT_SECONDS = 5.0

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class NamedRegion(NamedTuple):
    """What a name stands for: without a ``version`` the newest that is sealed, or, where none is, the newest."""

    model: str
    name: str
    version: str | None = None

    @property
    def shown(self) -> str:
        """How messages call it."""
        return f"{self.model}/{self.name}{show_version(self.version)}"

    @property
    def made(self) -> NamedRegion:
        """What a creation under that name makes: the empty version, unless it is said."""
        return NamedRegion(self.model, self.name, self.version or "")


@dataclass(frozen=True, slots=True)
class NamedGroup:
    """Names of one model, of one ``version`` or, without, each of the one that ``NamedRegion`` says."""

    model: str
    names: tuple[str, ...]
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Creation:
    """The answer of a create: ``created`` is false if the region was there before."""

    region: RegionDescriptor
    created: bool


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    """The answer of a claim: ``claim`` for the builder, else the region if there is one, sealed or not yet."""

    claim: str | None
    region: RegionDescriptor | None


class Api:
    """One server's routes. Every method raises the exceptions of ``_errors.from_problem`` and of ``Transport``."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.broker = Broker(transport, self._find_broker)
        self._instance: str | None = None
        # Whether a region that this client made could be reached here neither by its name nor by the broker.
        self.shares_no_memory = False

    def is_ready(self) -> bool:
        return self.transport.request("GET", "/readyz", repeatable=False).status == 200

    def _find_broker(self) -> str | None:
        reply = self.transport.request("GET", "/v1/capabilities", repeatable=True, patient=False)
        return read("capabilities", _to_broker_path, expect(reply))

    def create_region(self, body: schemas.CreateRegion) -> Creation:
        # A repeat after a lost answer could make a second region, or find its own name taken. With "attach", or under a
        # claim, it finds the region that the lost request made, if it made one.
        if_exists = body.get("if_exists")
        repeatable = if_exists == "attach" or (if_exists == "replace" and "claim" in body)
        asked_at = time.time()
        patience = LONG_SECONDS + body.get("deadline_ms", 0) / 1000
        reply = self.transport.request("POST", "/v1/regions", body, repeatable=repeatable, answer_seconds=patience)
        region = parse_descriptor(expect(reply))
        created = reply.status == 201
        if reply.repeated and not created:
            created = self._is_from(region, asked_at)
        return Creation(region, created)

    def _is_from(self, region: RegionDescriptor, asked_at: float) -> bool:
        """Whether the region is our own lost request's: open, younger than it, and mapped by nobody yet.

        If it were taken for somebody else's, nobody would ever fill it.
        """
        if region.state != "open" or _to_seconds(region.created_at) < math.floor(asked_at * 1000) / 1000:
            return False
        return self.region(region.id).in_use is False

    def region(self, region_id: str, *, patient: bool = True) -> RegionDescriptor:
        path = _region_path(region_id)
        seconds = ANSWER_SECONDS if patient else IMPATIENT_SECONDS
        reply = self.transport.request("GET", path, repeatable=True, answer_seconds=seconds, patient=patient)
        return parse_descriptor(expect(reply))

    def upload(self, region_id: str, data: memoryview) -> None:
        """All of a region's bytes behind its header."""
        path = f"{_region_path(region_id)}/data"
        # A repeat writes the same bytes.
        expect(self.transport.request("PUT", path, data, repeatable=True, answer_seconds=LONG_SECONDS))

    def download(self, region_id: str, byte_size: int, write: Callable[[int, memoryview], None]) -> None:
        """All of a region's file, its header too, in pieces, each with its offset; from the beginning after a loss."""
        path = f"{_region_path(region_id)}/file/{region_id}.safetensors"
        into = Download(byte_size, write)
        expect(self.transport.request("GET", path, repeatable=True, into=into))

    def instance(self) -> str:
        """Of which instance the server is; asked once."""
        if self._instance is None:
            self._instance = read("capabilities", _to_instance, self._get("/v1/capabilities"))
        return self._instance

    def region_by_name(
        self, named: NamedRegion, wait_until: float | None = None, *, to_map: bool = False
    ) -> RegionDescriptor:
        # Who only looks takes no hand-off from its consumer.
        prefer = "attach" if to_map else None
        reply = self.transport.request(
            "GET", _version_path(named), repeatable=True, wait_until=wait_until, prefer=prefer
        )
        return parse_descriptor(expect(reply))

    def seal(self, region_id: str, body: schemas.SealRegion, if_match: int | None = None) -> RegionDescriptor:
        path = f"{_region_path(region_id)}/seal"
        reply = self.transport.request(
            "POST", path, body, repeatable=True, if_match=if_match, answer_seconds=LONG_SECONDS
        )
        try:
            return parse_descriptor(expect(reply))
        except RegionSealed:
            # The lost request has sealed it: this is its answer.
            if reply.repeated:
                return self.region(region_id)
            raise

    def seal_group(self, body: schemas.SealGroup) -> list[RegionDescriptor]:
        """What was sealed, without tensors, in the body's order."""
        reply = self.transport.request("POST", "/v1/seal", body, repeatable=True, answer_seconds=LONG_SECONDS)
        try:
            return read("group", _to_group, expect(reply))
        except RegionSealed:
            # All of them are sealed or none: the lost request has done it.
            if reply.repeated:
                regions = [self.region(member["region"]) for member in body["regions"]]
                if all(region.state == "sealed" for region in regions):
                    return regions
            raise

    def open_group(self, named: NamedGroup, wait_until: float | None = None) -> list[RegionDescriptor]:
        body: schemas.OpenGroup = {"model": named.model, "names": list(named.names)}
        if named.version is not None:
            body["version"] = named.version
        reply = self.transport.request("POST", "/v1/open", body, repeatable=True, wait_until=wait_until)
        return read("group", _to_group, expect(reply))

    def verify(self, region_id: str) -> Verification:
        path = f"{_region_path(region_id)}/verify"
        reply = self.transport.request("POST", path, repeatable=True, answer_seconds=LONG_SECONDS)
        return parse_verification(expect(reply))

    def advise(self, region_id: str, advice: Literal["willneed", "dontneed"]) -> Residency:
        path = f"{_region_path(region_id)}/advise"
        body: schemas.AdviseRegion = {"advice": advice}
        reply = self.transport.request("POST", path, body, repeatable=True, answer_seconds=LONG_SECONDS)
        return parse_residency(expect(reply))

    def flush(self, region_id: str) -> bool:
        path = f"{_region_path(region_id)}/flush"
        reply = self.transport.request("POST", path, repeatable=True, answer_seconds=LONG_SECONDS)
        return parse_flushed(expect(reply))

    def change_region(
        self, region_id: str, body: schemas.ChangeRegion, if_match: int | None = None
    ) -> RegionDescriptor:
        return parse_descriptor(self._patch(_region_path(region_id), body, if_match))

    def delete_region(self, region_id: str, if_match: int | None = None) -> Deletion:
        path = _region_path(region_id)
        reply = self.transport.request("DELETE", path, repeatable=True, if_match=if_match, answer_seconds=LONG_SECONDS)
        try:
            return parse_deletion(expect(reply))
        except RegionNotFound:
            if reply.repeated:
                return Deletion("deleted", 0)
            raise

    def regions(self, query: Mapping[str, str | None]) -> Iterator[RegionDescriptor]:
        yield from map(parse_descriptor, self._pages("/v1/regions", query))

    def leases(self, region_id: str) -> Iterator[Lease]:
        yield from map(parse_lease, self._pages(f"{_region_path(region_id)}/leases", {}))

    def register_model(self, body: schemas.RegisterModel) -> Model:
        return parse_model(expect(self.transport.request("POST", "/v1/models", body, repeatable=False)))

    def models(self) -> Iterator[Model]:
        yield from map(parse_model, self._pages("/v1/models", {}))

    def model(self, name: str) -> Model:
        return parse_model(self._get(_model_path(name)))

    def change_model(self, name: str, body: schemas.ChangeModel, if_match: int | None = None) -> Model:
        return parse_model(self._patch(_model_path(name), body, if_match))

    def unregister_model(self, name: str, *, drain: bool, if_match: int | None = None) -> Deletion:
        path = _model_path(name) + ("?drain=true" if drain else "")
        reply = self.transport.request("DELETE", path, repeatable=True, if_match=if_match, answer_seconds=LONG_SECONDS)
        return parse_deletion(expect(reply))

    def open_session(self, body: schemas.OpenSession) -> str:
        # If the answer is lost there are two, and the first ends by its TTL with nothing in it.
        return read("session", _to_id, expect(self.transport.request("POST", "/v1/sessions", body, repeatable=True)))

    def session(self, session_id: str) -> SessionDescriptor:
        return parse_session(self._get(_session_path(session_id)))

    def sessions(self) -> Iterator[SessionDescriptor]:
        yield from map(parse_session, self._pages("/v1/sessions", {}))

    def end_session(self, session_id: str) -> SessionEnd:
        path = _session_path(session_id)
        reply = self.transport.request("DELETE", path, repeatable=True, answer_seconds=LONG_SECONDS)
        return parse_session_end(expect(reply))

    def claim(
        self,
        named: NamedRegion,
        session_id: str,
        key: str,
        wait_until: float | None = None,
        *,
        rebuild: str | None = None,
    ) -> ClaimAnswer:
        """``rebuild`` is the id of a sealed region that is to be built anew."""
        # Asked again with the same key, the server says the same.
        body: schemas.ClaimRequest = {"session": session_id, "key": key}
        if rebuild is not None:
            body["rebuild"] = rebuild
        if named.version is not None:
            body["version"] = named.version
        path = f"{_name_path(named)}/claim"
        reply = self.transport.request("POST", path, body, repeatable=True, wait_until=wait_until)
        return read("claim", _to_claim, expect(reply))

    def release_claim(self, named: NamedRegion, claim: str) -> None:
        path = f"{_name_path(named)}/claim" + _to_query({"claim": claim, "version": named.version})
        expect(self.transport.request("DELETE", path, repeatable=True))

    def take_lease(self, region_id: str, session_id: str) -> str:
        # If the answer is lost there are two, and both end with the session.
        body: schemas.TakeLease = {"session": session_id, "ttl_ms": LEASE_TTL_MS}
        path = f"{_region_path(region_id)}/leases"
        reply = self.transport.request("POST", path, body, repeatable=True, patient=False)
        return read("lease", _to_id, expect(reply))

    def end_lease(self, lease_id: str) -> None:
        expect(self.transport.request("DELETE", f"/v1/leases/{quote(lease_id, safe='')}", repeatable=True))

    def copy_region(self, region_id: str, body: schemas.CopyRegion) -> OperationDescriptor:
        # Under its key a repeat finds what the lost request has begun.
        path = f"{_region_path(region_id)}/copy"
        return parse_operation(expect(self.transport.request("POST", path, body, repeatable="key" in body)))

    def load_model(self, model: str, body: schemas.LoadModel) -> OperationDescriptor:
        # As for a copy.
        path = f"/v1/models/{quote(model, safe='')}/load"
        return parse_operation(expect(self.transport.request("POST", path, body, repeatable="key" in body)))

    def operation(self, operation_id: str, wait_until: float | None = None) -> OperationDescriptor:
        path = _operation_path(operation_id)
        return parse_operation(expect(self.transport.request("GET", path, repeatable=True, wait_until=wait_until)))

    def operations(self, query: Mapping[str, str | None]) -> Iterator[OperationDescriptor]:
        yield from map(parse_operation, self._pages("/v1/operations", query))

    def cancel_operation(self, operation_id: str) -> OperationDescriptor:
        path = _operation_path(operation_id)
        reply = self.transport.request("DELETE", path, repeatable=True, answer_seconds=LONG_SECONDS)
        return parse_operation(expect(reply))

    def evict(self, body: schemas.EvictRequest) -> Eviction:
        reply = self.transport.request("POST", "/v1/evict", body, repeatable=False, answer_seconds=LONG_SECONDS)
        return parse_eviction(expect(reply))

    def create_elastic_pool(self, model: str, device_uuid: str, body: schemas.CreateElasticPool) -> PoolStatistics:
        # The same values again find the pool that there is.
        path = _elastic_path(model, device_uuid)
        return parse_pool_statistics(expect(self.transport.request("PUT", path, body, repeatable=True)))

    def elastic_pool(self, model: str, device_uuid: str) -> PoolStatistics:
        return parse_pool_statistics(self._get(_elastic_path(model, device_uuid)))

    def elastic_pools(self, query: Mapping[str, str | None]) -> Iterator[PoolStatistics]:
        yield from map(parse_pool_statistics, self._pages("/v1/vmm", query))

    def change_elastic_pool(
        self, model: str, device_uuid: str, body: schemas.ChangeElasticPool, if_match: int | None = None
    ) -> PoolStatistics:
        return parse_pool_statistics(self._patch(_elastic_path(model, device_uuid), body, if_match))

    def delete_elastic_pool(self, model: str, device_uuid: str, if_match: int | None = None) -> Deletion:
        path = _elastic_path(model, device_uuid)
        reply = self.transport.request("DELETE", path, repeatable=True, if_match=if_match, answer_seconds=LONG_SECONDS)
        try:
            return parse_deletion(expect(reply))
        except ElasticPoolNotFound:
            if reply.repeated:
                return Deletion("deleted", 0)
            raise

    def map_pages(self, model: str, device_uuid: str, body: schemas.MapPages) -> MappedRun:
        # A repeat after a lost answer would map as much again.
        path = f"{_elastic_path(model, device_uuid)}/map"
        patience = LONG_SECONDS + body.get("deadline_ms", 0) / 1000
        reply = self.transport.request("POST", path, body, repeatable=False, answer_seconds=patience)
        return parse_mapped_run(expect(reply))

    def unmap_pages(self, model: str, device_uuid: str, body: schemas.UnmapPages) -> OperationDescriptor:
        path = f"{_elastic_path(model, device_uuid)}/unmap"
        return parse_operation(expect(self.transport.request("POST", path, body, repeatable=False)))

    def trim_pool(self, model: str, device_uuid: str) -> Trimmed:
        path = f"{_elastic_path(model, device_uuid)}/trim"
        reply = self.transport.request("POST", path, repeatable=True, answer_seconds=LONG_SECONDS)
        return parse_trimmed(expect(reply))

    def compact_pool(self, model: str, device_uuid: str) -> Compacted:
        # A repeat would not tell what the lost request has moved.
        path = f"{_elastic_path(model, device_uuid)}/compact"
        reply = self.transport.request("POST", path, repeatable=False, answer_seconds=LONG_SECONDS)
        return parse_compacted(expect(reply))

    def stats(self) -> Stats:
        return parse_stats(self._get("/v1/stats"))

    def devices(self) -> DeviceList:
        return parse_devices(self._get("/v1/devices"))

    def device(self, device_uuid: str) -> Device:
        return parse_device(self._get(f"/v1/devices/{quote(device_uuid, safe='')}"))

    def _get(self, path: str) -> Any:
        return expect(self.transport.request("GET", path, repeatable=True))

    def _patch(self, path: str, body: Any, if_match: int | None) -> Any:
        # A repeat would find the revision that a lost request has made.
        repeatable = if_match is None
        return expect(self.transport.request("PATCH", path, body, repeatable=repeatable, if_match=if_match))

    def _pages(self, path: str, query: Mapping[str, str | None]) -> Iterator[Any]:
        parameters = {"limit": str(LIST_PAGE), **query}
        while True:
            items, cursor = read("page", _to_page, self._get(path + _to_query(parameters)))
            yield from items
            if cursor is None:
                return
            parameters["cursor"] = cursor


def expect(reply: Reply) -> Any:
    """The body of a success. Raises what the server says otherwise."""
    if 200 <= reply.status < 300:
        return reply.body
    if isinstance(reply.body, dict):
        raise from_problem(reply.status, reply.body)
    if reply.status == 503:
        raise ServerUnavailable("Cannot use tensord: it answered 503 without a reason", status=503)
    raise from_problem(
        reply.status, {"detail": f"The answer is status {reply.status} and no problem: is this a tensord server?"}
    )


def _to_broker_path(value: schemas.Capabilities) -> str | None:
    # A server from before there was one says nothing of it.
    broker = value.get("broker")
    return None if broker is None else str(broker["path"])


def _to_instance(value: schemas.Capabilities) -> str:
    return str(value["instance"])


def _to_id(value: schemas.Session | schemas.Lease) -> str:
    return str(value["id"])


def _to_claim(value: schemas.ClaimAnswer) -> ClaimAnswer:
    region = value["region"]
    return ClaimAnswer(value["claim"], None if region is None else parse_descriptor(region))


def _to_group(value: schemas.SealedGroup | schemas.OpenedGroup) -> list[RegionDescriptor]:
    return [parse_descriptor(item) for item in value["items"]]


def _to_page(
    value: schemas.RegionList
    | schemas.ModelList
    | schemas.ElasticPoolList
    | schemas.SessionList
    | schemas.LeaseList
    | schemas.OperationList,
) -> tuple[list[Any], str | None]:
    return [*value["items"]], value["next_cursor"]


def _region_path(region_id: str) -> str:
    if _ID.fullmatch(region_id) is None:
        raise ValidationFailed(
            f"Cannot ask for region {region_id!r}: it is no region id",
            hint="ids begin with reg_; client.get(name) finds by name",
        )
    return f"/v1/regions/{region_id}"


def _operation_path(operation_id: str) -> str:
    return f"/v1/operations/{quote(operation_id, safe='')}"


def _elastic_path(model: str, device_uuid: str) -> str:
    return f"{_model_path(model)}/vmm/{quote(device_uuid, safe='')}"


def _session_path(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _name_path(named: NamedRegion) -> str:
    return f"{_model_path(named.model)}/regions/{_checked(named.name)}"


@functools.lru_cache(maxsize=256)
def _version_path(named: NamedRegion) -> str:
    """Where that is asked for; kept, since who attaches a name again asks for the same."""
    return _name_path(named) + _to_query({"version": named.version})


def _to_query(parameters: Mapping[str, str | None]) -> str:
    """What was given of them, as the end of a path."""
    given = {key: value for key, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _model_path(model: str) -> str:
    return f"/v1/models/{_checked(model)}"


def _checked(name: str) -> str:
    # Every name was held to its kind already. One like ".." would be folded away, and reach another route.
    return quote(NAME_KIND.take(name), safe="")


def _to_seconds(time_text: str) -> float:
    try:
        return datetime.fromisoformat(time_text).timestamp()
    except ValueError as error:
        raise ServerFault(f"Cannot read the server's answer: {time_text!r} is no time") from error
