"""What happened on the server: one frozen record an event, parsed from its CloudEvent. Nothing here connects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tensord._errors import ServerFault

if TYPE_CHECKING:
    from tensord._wire import schemas

STREAM = "tensord.stream."
OPENED = "tensord.stream.opened"

_ID = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Event:
    """A change that the server told of.

    ``type`` is ``tensord.region.`` and ``allocated``, ``sealed``, ``changed``, ``draining``, ``deleted``, ``lost`` or
    ``relinked``; ``tensord.session.`` and ``opened`` or ``ended``; ``tensord.model.`` and ``registered``, ``changed``
    or ``unregistered``; ``tensord.operation.`` and ``progress`` or ``finished``; ``tensord.vmm.`` and ``mapped``,
    ``unmapped`` or ``moved``; ``tensord.pool.pressure``; or ``tensord.stream.gap``: events are missing here, so list
    again.
    ``subject`` is the region's, session's, operation's or elastic pool's id or the model's name, ``data`` the
    descriptor without its tensors, the session, the operation, the model, the pages, or how full the pool is:
    ``KnownEvents`` in ``openapi.yaml`` has the fields for each type, and a newer server may tell of others. ``id`` is a
    decimal number that rises from event to event and never repeats. That of a ``tensord.stream.gap`` is no number;
    ``EventStream.after`` is where the stream stands behind either. ``epoch`` tells which start of the server it is
    from.
    """

    id: str
    type: str
    time: datetime
    subject: str | None
    data: Mapping[str, Any]
    epoch: int
    source: str


def parse_event(text: bytes) -> tuple[Event, str | None]:
    """Reads an event's JSON, and where a stream stands behind it. Raises ``ServerFault`` if it is none.

    ``None`` of what a newer server's stream may say of itself: then it stands where it stood.
    """
    try:
        event = _to_event(json.loads(text))
        return event, _to_position(event)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ServerFault(
            f"Cannot follow the events: what came is none ({error!r})", hint="is the server another version?"
        ) from error


def _to_event(value: schemas.CloudEvent) -> Event:
    return Event(
        id=str(value["id"]),
        type=str(value["type"]),
        time=datetime.fromisoformat(value["time"]),
        subject=value.get("subject"),
        data=dict(value["data"]),
        epoch=int(value["tensordepoch"]),
        source=str(value["source"]),
    )


def _to_position(event: Event) -> str | None:
    position = event.data.get("after") if event.type.startswith(STREAM) else event.id
    # It goes into a header.
    if position is not None and _ID.fullmatch(position) is None:
        raise ValueError(f"{position[:80]!r} is no id")
    return position
