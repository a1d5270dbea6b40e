"""Drives the client that openapi-generator makes for Python: ../steps.ts says what each step does."""

import re
import sys

from client import ApiClient, Configuration
from client.api.host_api import HostApi
from client.api.regions_api import RegionsApi
from client.api.sessions_api import SessionsApi
from client.exceptions import ApiException
from client.models.change_region import ChangeRegion
from client.models.create_region import CreateRegion
from client.models.dtype import Dtype
from client.models.open_session import OpenSession
from client.models.problem import Problem
from client.models.region import Region
from client.models.seal_region import SealRegion
from client.models.tensor_request import TensorRequest
from report import step, want

url, tomorrow_url, large_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
api_client = ApiClient(Configuration(host=url))
regions, sessions, host = RegionsApi(api_client), SessionsApi(api_client), HostApi(api_client)

session = sessions.open_session(OpenSession(ttl_ms=60_000))
tensors = [
    TensorRequest(name="w", dtype=Dtype.BF16, shape=[2, 3]),
    TensorRequest(name="b", dtype=Dtype.F32, shape=[3]),
]
weights = CreateRegion(model="default", name="weights", tensors=tensors, session=session.id)
region: Region


def problem_of(error: ApiException, status: int, code: str) -> Problem:
    want("status", error.status, status)
    problem = error.data
    assert isinstance(problem, Problem), f"no Problem was read, but {problem!r}"
    want("status in the Problem", problem.status, status)
    want("code", problem.code, code)
    return problem


def refuse(request: CreateRegion, status: int, code: str) -> Problem:
    try:
        regions.create_region(request)
    except ApiException as error:
        return problem_of(error, status, code)
    raise AssertionError(f"it was created, want {status}")


def missing(api: RegionsApi, code: str) -> Problem:
    try:
        api.get_region("reg_missingmissingmissingmissi")
    except ApiException as error:
        return problem_of(error, 404, code)
    raise AssertionError("it is there, want 404")


@step
def create() -> None:
    global region
    region = regions.create_region(weights)
    want("owner.kind", region.owner.kind, "session")
    want("session", region.session, session.id)
    want("tensors", len(region.tensors), 2)
    want("w.byte_size", region.tensors[0].byte_size, 12)


@step
def checksum_null() -> None:
    want("checksum", region.checksum, None)


@step
def get() -> None:
    detail = regions.get_region(region.id)
    want("id", detail.id, region.id)
    want("b.name", detail.tensors[1].name, "b")


@step
def get_by_name() -> None:
    want("id", regions.get_region_by_name("default", "weights").id, region.id)


@step
def list() -> None:
    page = regions.list_regions(model="default")
    want("ids", [item.id for item in page.items], [region.id])
    want("next_cursor", page.next_cursor, None)


def label_it() -> Region:
    return regions.change_region(region.id, change_region=ChangeRegion(labels={"job": "nightly"}), if_match='"1"')


@step
def change() -> None:
    changed = label_it()
    want("revision", changed.revision, 2)
    want("labels", changed.labels, {"job": "nightly"})


@step
def stale() -> None:
    try:
        label_it()
    except ApiException as error:
        problem_of(error, 412, "revision-mismatch")
    else:
        raise AssertionError("it was changed, want 412")


@step
def seal() -> None:
    global region
    region = regions.seal_region(region.id, seal_region=SealRegion(checksum=True))
    want("state", region.state, "sealed")


@step
def checksum() -> None:
    assert region.checksum is not None
    want("algorithm", region.checksum.algorithm, "xxh3-64-tree")
    assert re.fullmatch("[0-9a-f]{16}", region.checksum.value), region.checksum.value


@step
def not_found() -> None:
    missing(regions, "region-not-found")


@step
def name_taken() -> None:
    refuse(weights, 409, "name-taken")


@step
def invalid() -> str:
    issues = refuse(weights.model_copy(update={"labels": {"": "x"}}), 422, "validation-failed").issues
    assert issues is not None
    return issues[0].path


@step
def full() -> str:
    problem = refuse(CreateRegion(byte_size=2**50, ttl_ms=60_000), 507, "pool-full")
    return f"{problem.code} {problem.requested_bytes} {problem.available_bytes}"


if large_bytes > 0:

    @step
    def large() -> str:
        large = regions.create_region(CreateRegion(byte_size=large_bytes, ttl_ms=60_000))
        regions.delete_region(large.id)
        return f"{large.tensors[0].byte_size} {large.storage.byte_size}"


@step
def persist() -> None:
    kept = regions.create_region(CreateRegion(model="default", name="kept", persist=True, byte_size=64))
    want("owner.kind", kept.owner.kind, "persist")
    want("state", regions.delete_region(kept.id).state, "deleted")


@step
def epoch() -> str:
    return str(host.get_stats().epoch)


@step
def tomorrow() -> str:
    tomorrows = RegionsApi(ApiClient(Configuration(host=tomorrow_url)))
    later = tomorrows.create_region(CreateRegion(tensors=tensors, ttl_ms=60_000))
    problem = missing(tomorrows, "region-not-found-of-tomorrow")
    return f"{later.owner.kind} {later.storage.kind} {later.tensors[0].dtype} {problem.code}"


@step
def end() -> None:
    want("regions", sessions.end_session(session.id).regions, 1)
