"""A program over what openapi-python-client makes of `openapi.yaml`.

It tells on standard output what it was answered. Where a line must not pass mypy, it says so: a client whose types are
`Any` fails there.
"""

import json
import sys
from typing import TYPE_CHECKING

from client import Client
from client.api.events import list_events
from client.api.host import diagnose, get_capabilities, get_stats
from client.api.regions import create_region, delete_region, evict, get_region, list_regions
from client.models import (
    Capabilities,
    CreateRegion,
    CreateRegionLabels,
    Deletion,
    Diagnosis,
    Dtype,
    EventPage,
    Eviction,
    EvictRequest,
    FailureCode,
    ListRegionsState,
    Problem,
    Region,
    RegionList,
    Stats,
    TensorRequest,
)

client = Client(base_url=sys.argv[1])

body = CreateRegion(
    name="weights",
    tensors=[TensorRequest(name="w", dtype=Dtype.BF16, shape=[2, 3])],
    ttl_ms=60_000,
    labels=CreateRegionLabels.from_dict({"job": "nightly"}),
)
allocated = create_region.sync_detailed(client=client, body=body)
region = allocated.parsed
assert isinstance(region, Region), region
if TYPE_CHECKING:
    revision: str = region.revision  # type: ignore[assignment]  # a revision is a number
    dtype = Dtype.BFLOAT16  # type: ignore[attr-defined]  # there is no such dtype

listed = list_regions.sync(client=client, model="default", state=ListRegionsState.OPEN, limit=10)
assert isinstance(listed, RegionList), listed
events = list_events.sync(client=client, types="tensord.region.", limit=10)
assert isinstance(events, EventPage), events
stats = get_stats.sync(client=client)
assert isinstance(stats, Stats), stats
missing = get_region.sync_detailed(region="reg_missing", client=client)
problem = missing.parsed
assert isinstance(problem, Problem), problem
if TYPE_CHECKING:
    code = FailureCode.NO_SUCH_CODE  # type: ignore[attr-defined]  # no failure of this version has this code
capabilities = get_capabilities.sync(client=client)
assert isinstance(capabilities, Capabilities), capabilities
diagnosis = diagnose.sync(client=client)
assert isinstance(diagnosis, Diagnosis), diagnosis
eviction = evict.sync(client=client, body=EvictRequest(bytes_=2**40, dry_run=True))
assert isinstance(eviction, Eviction), eviction
deletion = delete_region.sync(region=region.id, client=client)
assert isinstance(deletion, Deletion), deletion

told = {
    "allocated": allocated.status_code,
    "region": region.to_dict(),
    "listed": [item.to_dict() for item in listed.items],
    "next_cursor": listed.next_cursor,
    "events": [{"type": event.type_, "subject": event.subject} for event in events.items],
    "open": stats.regions.open_,
    "instance": stats.instance,
    "missing": missing.status_code,
    "problem": problem.to_dict(),
    "storages": [storage.kind for storage in capabilities.storages],
    "dtypes": capabilities.dtypes,
    "findings": [finding.status for finding in diagnosis.findings],
    "evicted": len(eviction.evicted),
    "deletion": deletion.to_dict(),
}
print(json.dumps(told))
