"""Follows the server's events from now on, and passes each on as it comes. A killed server is the client's business."""

from __future__ import annotations

import tensord
from talk import say

with tensord.connect() as client, client.events() as events:
    say(after=events.after)
    for event in events:
        # Some may be missing here, so only a new list tells what there is.
        listed = [region.id for region in client.list()] if event.type == "tensord.stream.gap" else None
        say(
            id=event.id, epoch=event.epoch, type=event.type, subject=event.subject, data=dict(event.data), listed=listed
        )
