"""Devices of the server's host: plain, frozen records parsed from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU of the server's host at one moment.

    ``uuid`` names it in every process; ``index`` is its number in the server's process alone. ``None`` is what nobody
    tells: ``free_bytes``, ``others_bytes`` (what is used there, and not by this server) and ``persistence_mode`` are
    NVML's. ``allocated_bytes`` is what this server's regions take of ``limit_bytes``. One that is not ``usable`` says
    why by a word (``reason``) and a sentence (``detail``), and what to do (``hint``). ``raw`` is the JSON object
    itself.
    """

    kind: str
    uuid: str | None
    name: str
    index: int | None
    bus_id: str
    minor: int | None
    excluded: bool
    compute_capability: str | None
    total_bytes: int | None
    granularity: int | None
    vmm: bool | None
    fd_handles: bool | None
    handle_type: str | None
    compute_mode: str | None
    mig: bool | None
    persistence_mode: bool | None
    allocated_bytes: int
    limit_bytes: int | None
    free_bytes: int | None
    others_bytes: int | None
    usable: bool
    reason: str | None
    detail: str | None
    hint: str | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DeviceList:
    """The devices of the server's host, and why none can be used if that is so: ``reason``, ``detail`` and ``hint``
    are of the driver as a whole. ``driver_version`` is the kernel driver's, ``cuda_version`` what its library speaks.
    """

    items: tuple[Device, ...]
    driver_version: str | None
    cuda_version: str | None
    reason: str | None
    detail: str | None
    hint: str | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_device(value: Any) -> Device:
    """Reads a device's JSON. Raises ``ServerFault`` if it is none."""
    return read("device", _to_device, value)


def parse_devices(value: Any) -> DeviceList:
    """Reads the JSON of ``/v1/devices``. Raises ``ServerFault`` if it is none."""
    return read("answer of /v1/devices", _to_devices, value)


def _to_device(value: schemas.Device) -> Device:
    return Device(
        kind=str(value["kind"]),
        uuid=value["uuid"],
        name=str(value["name"]),
        index=value["index"],
        bus_id=str(value["bus_id"]),
        minor=value["minor"],
        excluded=bool(value["excluded"]),
        compute_capability=value["compute_capability"],
        total_bytes=value["total_bytes"],
        granularity=value["granularity"],
        vmm=value["vmm"],
        fd_handles=value["fd_handles"],
        handle_type=value["handle_type"],
        compute_mode=value["compute_mode"],
        mig=value["mig"],
        persistence_mode=value["persistence_mode"],
        allocated_bytes=int(value["allocated_bytes"]),
        limit_bytes=value["limit_bytes"],
        free_bytes=value["free_bytes"],
        others_bytes=value["others_bytes"],
        usable=bool(value["usable"]),
        reason=value["reason"],
        detail=value["detail"],
        hint=value["hint"],
        raw=value,
    )


def _to_devices(value: schemas.DeviceList) -> DeviceList:
    return DeviceList(
        items=tuple(map(_to_device, value["items"])),
        driver_version=value["driver_version"],
        cuda_version=value["cuda_version"],
        reason=value["reason"],
        detail=value["detail"],
        hint=value["hint"],
        raw=value,
    )
