"""One of N builds: each asks for its turn, the first becomes the builder, and the others get the sealed region. If the
builder dies or fails, the next in line builds.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tensord._api import Api, ClaimAnswer, NamedRegion
from tensord._errors import (
    ClaimNotFound,
    DeadlineExceeded,
    NotFound,
    RegionDraining,
    RegionNotFound,
)
from tensord._session.session import Session
from tensord._transport.transport import MAX_WAIT_SECONDS
from tensord._wire.region import RegionDescriptor

from .copy import Source
from .make import make_region, open_region
from .region import Region
from .requests import IfExists, to_built

if TYPE_CHECKING:
    from tensord._wire import schemas

# How often to ask where the server does not hold its answer back: within the last second.
POLL_SECONDS = 0.05


def get_or_build(
    api: Api,
    session: Session,
    build: Callable[[], Any],
    body: schemas.CreateRegion,
    *,
    name: str,
    timeout: float | None,
    checksum: bool,
    strict: bool,
    rebuild: bool,
    complete: Callable[[Region], None] | None = None,
) -> Region:
    """The sealed region of that name in ``body``'s model, of its version if it says one, made from what ``build``
    returns if it is this caller's turn.

    ``strict`` is for those who find it. With ``rebuild`` it is one that was sealed from now on. ``complete`` writes
    into the region before its seal what only the region itself tells, as the name of its file.
    """
    named = NamedRegion(body["model"], name, body.get("version"))
    stale = _find_sealed(api, named.made) if rebuild else None
    turn = Turn(api, session, named.made if rebuild else named, timeout, stale)
    made: tuple[list[Source], list[schemas.TensorRequest]] | None = None
    try:
        while True:
            found = turn.wait()
            if made is None and isinstance(found, str):
                made = to_built(build())
            # Caught is what another's doing may bring about: the region has ended before it was mapped here, or our
            # session has, and with it our turn. Then it is asked again, and nothing is built twice.
            with contextlib.suppress(RegionNotFound, RegionDraining, ClaimNotFound):
                if isinstance(found, RegionDescriptor):
                    return open_region(api, session, found, None, writable=False, strict=strict)
                assert made is not None, "a builder has built"
                sources, specs = made
                # A lost answer is asked for again, which "fail" does not allow; it finds nobody's region but ours.
                if_exists: IfExists = "attach" if stale is None else "replace"
                request: schemas.CreateRegion = {**body, "tensors": specs, "claim": found, "if_exists": if_exists}
                return _seal(make_region(api, session, sources, request), checksum, complete)
    except BaseException:
        turn.give_up()
        raise


def _find_sealed(api: Api, named: NamedRegion) -> str | None:
    """The id of the region that is to be built anew, if there is one; what is still open is being built already."""
    try:
        region = api.region_by_name(named)
    except NotFound:
        return None
    return region.id if region.state == "sealed" else None


def _seal(region: Region, checksum: bool, complete: Callable[[Region], None] | None) -> Region:
    try:
        if complete is not None:
            complete(region)
        # Who builds it is one of those for whom it is built.
        region._attachment.use_as_well()
        region.seal(checksum=checksum)
    except BaseException:
        region.close()
        raise
    return region


class Turn:
    """One caller's place among those who want a name to be built. ``timeout`` in seconds bounds its waiting; ``stale``
    is the id of a region that counts as if it were not there.
    """

    def __init__(
        self, api: Api, session: Session, named: NamedRegion, timeout: float | None, stale: str | None = None
    ) -> None:
        self._api = api
        self._session = session
        self._named = named
        self._timeout = timeout
        self._stale = stale
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        # The server knows by it that a repeated request is the same one.
        self._key = secrets.token_hex(16)
        self._session_id: str | None = None

    def wait(self) -> str | RegionDescriptor:
        """The claim to build under, or the sealed region. Raises ``DeadlineExceeded``."""
        while True:
            asked_at = time.monotonic()
            answer = self._session.use(self._ask)
            if answer.claim is not None:
                return answer.claim
            if answer.region is not None and answer.region.state == "sealed":
                return answer.region
            now = time.monotonic()
            if now >= self._deadline:
                raise DeadlineExceeded(
                    f"Cannot get {self._named.shown}: somebody still builds it after {self._timeout:g} s",
                    hint="wait longer, or with timeout=None until it is there",
                )
            if now - asked_at < POLL_SECONDS:
                time.sleep(min(POLL_SECONDS, self._deadline - now))

    def give_up(self) -> None:
        """Lets the next in line build; in the background, and once the server is there again."""
        session_id = self._session_id
        if session_id is None:
            return

        # Named in full: by the name alone the server would tell of another version that is sealed by now.
        named = self._named.made

        def clean(api: Api) -> None:
            # By the key, since the answer that brought the claim may be the one that was lost.
            claim = api.claim(named, session_id, self._key, rebuild=self._stale).claim
            if claim is None:
                return
            # So may be the one of a create, whose region would stand in the way, or be left until the session ends.
            with contextlib.suppress(NotFound):
                for region in api.regions({"model": named.model, "session": session_id}):
                    is_built = (region.pending_name or region.name, region.version) == (named.name, named.version)
                    if is_built and region.owner.kind != "session" and region.state != "sealed":
                        api.delete_region(region.id)
            api.release_claim(named, claim)

        self._session.later(clean)

    def _ask(self, session_id: str) -> ClaimAnswer:
        self._session_id = session_id
        until = min(self._deadline, time.monotonic() + MAX_WAIT_SECONDS)
        return self._api.claim(self._named, session_id, self._key, until, rebuild=self._stale)
