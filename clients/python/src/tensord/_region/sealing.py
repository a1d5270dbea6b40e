"""Seals of regions that this process maps: it gives up its own writing first, in place, and resumes it if they fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tensord._errors import RegionDraining, TensordError
from tensord._mapping.attach import Mismatch
from tensord._mapping.mapping import Access

from .heap import finish, upload, was_sealed

if TYPE_CHECKING:
    from tensord._wire.region import RegionDescriptor

    from .region import Region

# A stock reader may unlink the name that the server has just brought back; not four times.
REMAP_TRIES = 4


def seal_mapped(
    regions: Sequence[Region], seal: Callable[[], Sequence[RegionDescriptor]]
) -> Sequence[RegionDescriptor]:
    """Calls ``seal`` while none of ``regions`` is mapped for writing here. Each must be there once.

    If it fails, those that were are writable again, and its error says so where they cannot be.
    """
    with contextlib.ExitStack() as turns:
        # In one order: two groups that have two regions in common wait for each other otherwise.
        for region in sorted(regions, key=lambda each: each.id):
            turns.enter_context(region._seal_lock)
        written = [region for region in regions if region._attachment.view.access is Access.WRITE]
        try:
            for region in written:
                _remap(region, Access.PRIVATE)
            for region in written:
                upload(region)
            sealed = seal()
            for region in written:
                finish(region)
            return sealed
        except BaseException as error:
            for region in written:
                if region._attachment.access is not Access.WRITE and not was_sealed(region):
                    _resume_writing(region, error)
            raise


def _remap(region: Region, access: Access) -> None:
    for _ in range(REMAP_TRIES):
        try:
            return region._attachment.remap(access)
        except Mismatch as error:
            mismatch = error
        if mismatch.sealed or mismatch.truncated:
            break
        # Somebody unlinked the public name; when it is asked about a region, the server links it back.
        if region.refresh().state in ("draining", "deleted"):
            raise RegionDraining(f"Cannot seal {region.descriptor.shown}: it was deleted") from mismatch
    raise mismatch.to_error() from mismatch


def _resume_writing(region: Region, seal_error: BaseException) -> None:
    try:
        _remap(region, Access.WRITE)
    except TensordError as error:
        # The seal's own error is the one to report; this one only explains why writing is over.
        if isinstance(seal_error, TensordError):
            seal_error.fields["writable"] = False
            remark = f"the arrays stay read-only, since the region cannot be mapped for writing again: {error}"
            seal_error.hint = remark if seal_error.hint is None else f"{seal_error.hint}; {remark}"
