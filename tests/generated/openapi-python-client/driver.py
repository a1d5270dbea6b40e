"""Drives the client that openapi-python-client makes, over httpx: ../steps.ts says what each step does."""

import re
import sys
from typing import TypeVar

from client import Client
from client.api.host import get_stats
from client.api.regions import (
    change_region,
    create_region,
    delete_region,
    get_region,
    get_region_by_name,
    list_regions,
    seal_region,
)
from client.api.sessions import end_session, open_session
from client.models import (
    ChangeRegion,
    ChangeRegionLabels,
    Checksum,
    CreateRegion,
    CreateRegionLabels,
    Deletion,
    Dtype,
    OpenSession,
    Problem,
    Region,
    RegionDetail,
    RegionList,
    SealRegion,
    Session,
    SessionEnd,
    Stats,
    TensorRequest,
)
from client.types import Response
from report import step, want

Body = TypeVar("Body")

client = Client(base_url=sys.argv[1])
large_bytes = int(sys.argv[3])


def read(kind: type[Body], answer: object) -> Body:
    assert isinstance(answer, kind), f"the answer is {answer!r}"
    return answer


session = read(Session, open_session.sync(client=client, body=OpenSession(ttl_ms=60_000)))
tensors = [
    TensorRequest(name="w", dtype=Dtype.BF16, shape=[2, 3]),
    TensorRequest(name="b", dtype=Dtype.F32, shape=[3]),
]
weights = CreateRegion(name="weights", tensors=tensors, session=session.id)
region: Region


def make(request: CreateRegion) -> Region:
    return read(Region, create_region.sync(client=client, body=request))


def remove(made: Region) -> Deletion:
    return read(Deletion, delete_region.sync(made.id, client=client))


def problem_of(answer: Response[Body | Problem], status: int, code: str) -> Problem:
    want("status", answer.status_code, status)
    problem = read(Problem, answer.parsed)
    want("status in the Problem", problem.status, status)
    want("code", problem.code, code)
    return problem


def refuse(request: CreateRegion, status: int, code: str) -> Problem:
    return problem_of(create_region.sync_detailed(client=client, body=request), status, code)


@step
def create() -> None:
    global region
    region = make(weights)
    want("owner.kind", region.owner.kind, "session")
    want("session", region.session, session.id)
    want("tensors", len(region.tensors), 2)
    want("w.byte_size", region.tensors[0].byte_size, 12)


@step
def checksum_null() -> None:
    want("checksum", region.checksum, None)


@step
def get() -> None:
    detail = read(RegionDetail, get_region.sync(region.id, client=client))
    want("id", detail.id, region.id)
    want("b.name", detail.tensors[1].name, "b")


@step
def get_by_name() -> None:
    want("id", read(RegionDetail, get_region_by_name.sync("default", "weights", client=client)).id, region.id)


@step
def list() -> None:
    page = read(RegionList, list_regions.sync(client=client, model="default"))
    want("ids", [item.id for item in page.items], [region.id])
    want("next_cursor", page.next_cursor, None)


def label_it() -> Response[Region | Problem]:
    body = ChangeRegion(labels=ChangeRegionLabels.from_dict({"job": "nightly"}))
    return change_region.sync_detailed(region.id, client=client, body=body, if_match='"1"')


@step
def change() -> None:
    changed = read(Region, label_it().parsed)
    want("revision", changed.revision, 2)
    want("labels", changed.labels.to_dict(), {"job": "nightly"})


@step
def stale() -> None:
    problem_of(label_it(), 412, "revision-mismatch")


@step
def seal() -> None:
    global region
    region = read(Region, seal_region.sync(region.id, client=client, body=SealRegion(checksum=True)))
    want("state", region.state, "sealed")


@step
def checksum() -> None:
    taken = read(Checksum, region.checksum)
    want("algorithm", taken.algorithm, "xxh3-64-tree")
    assert re.fullmatch("[0-9a-f]{16}", taken.value), taken.value


@step
def not_found() -> None:
    problem_of(get_region.sync_detailed("reg_missing", client=client), 404, "region-not-found")


@step
def name_taken() -> None:
    refuse(weights, 409, "name-taken")


@step
def invalid() -> str:
    labels = CreateRegionLabels.from_dict({"": "x"})
    request = CreateRegion(name="other", tensors=tensors, session=session.id, labels=labels)
    issues = refuse(request, 422, "validation-failed").issues
    assert issues, "no issues were read"
    return issues[0].path


@step
def full() -> str:
    problem = refuse(CreateRegion(byte_size=2**50, ttl_ms=60_000), 507, "pool-full")
    return f"{problem.code} {problem.requested_bytes} {problem.available_bytes}"


if large_bytes > 0:

    @step
    def large() -> str:
        made = make(CreateRegion(byte_size=large_bytes, ttl_ms=60_000))
        remove(made)
        return f"{made.tensors[0].byte_size} {made.storage.byte_size}"


@step
def persist() -> None:
    kept = make(CreateRegion(name="kept", persist=True, byte_size=64))
    want("owner.kind", kept.owner.kind, "persist")
    want("state", remove(kept).state, "deleted")


@step
def epoch() -> str:
    return str(read(Stats, get_stats.sync(client=client)).epoch)


@step
def tomorrow() -> str:
    tomorrows = Client(base_url=sys.argv[2])
    later = read(Region, create_region.sync(client=tomorrows, body=CreateRegion(tensors=tensors, ttl_ms=60_000)))
    missing = get_region.sync_detailed("reg_missing", client=tomorrows)
    code = problem_of(missing, 404, "region-not-found-of-tomorrow").code
    return f"{later.owner.kind} {later.storage.kind} {later.tensors[0].dtype} {code}"


@step
def end() -> None:
    want("regions", read(SessionEnd, end_session.sync(session.id, client=client)).regions, 1)
