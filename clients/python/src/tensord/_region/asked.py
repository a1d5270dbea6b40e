"""The server, asked about a region whose name does not serve here: whether it stands, and for a descriptor of it."""

from __future__ import annotations

import os

from tensord._api import Api
from tensord._errors import RegionDraining, RegionNotFound, RegionSealed, ServerFault, StaleRef, TensordError
from tensord._mapping.attach import Asked, HandedDevice, Mismatch, NotHandedOut, Place
from tensord._mapping.lease import Role
from tensord._transport.broker import HandedOut, Unreachable
from tensord._wire.region import RegionDescriptor, parse_described_storage

from .heap import copy_by_id
from .mapper import to_file

_LEASES = {Role.CONSUMER: "consumer", Role.MAKER: "maker", Role.BUILDER: "both"}


def asked_by(api: Api) -> Asked:
    """Asks the server over HTTP once and without patience: no server, no word; and its broker as the client does."""

    def find(place: Place) -> RegionDescriptor | None:
        try:
            region = api.region(place.region, patient=False)
        except TensordError:
            return None
        identity = (region.storage.dev, region.storage.ino)
        ended = region.state in ("draining", "deleted")
        return None if ended or identity != (place.dev, place.ino) else region

    def stands(place: Place) -> bool:
        return find(place) is not None

    def byte_size(place: Place) -> int | None:
        region = find(place)
        return None if region is None else region.storage.byte_size

    def ask_broker(place: Place, writable: bool) -> HandedOut:
        try:
            return api.broker.attach(
                place.region, writable=writable, lease=_LEASES[place.role], instance=place.instance
            )
        except Unreachable as unreachable:
            raise NotHandedOut(unreachable.error) from unreachable
        except (RegionNotFound, RegionDraining, StaleRef) as error:
            raise Mismatch(place, f"is not handed out: {error.detail}") from error
        except RegionSealed as error:
            raise Mismatch(place, "is sealed", sealed=True) from error

    def hand_out(place: Place, writable: bool) -> tuple[int, bool]:
        handed = ask_broker(place, writable)
        if handed.device_fd is not None:
            # Its locks are wanted, and not its memory.
            os.close(handed.device_fd)
        return handed.fd, handed.leased

    def hand_out_device(place: Place, writable: bool) -> HandedDevice:
        handed = ask_broker(place, writable)
        try:
            storage = parse_described_storage(handed.region)
            if handed.device_fd is None:
                raise ServerFault(f"Cannot map region {place.region}: the broker sent no descriptor of its memory")
        except BaseException:
            handed.close()
            raise
        return HandedDevice(
            handed.fd,
            handed.leased,
            handed.device_fd,
            storage.device_uuid,
            storage.handle_type,
            storage.allocation_bytes,
        )

    return Asked(
        stands,
        hand_out,
        byte_size,
        lambda: api.broker.instance or api.instance(),
        copy_by_id(api),
        hand_out_device,
        lambda region: to_file(api.region(region)),
    )
