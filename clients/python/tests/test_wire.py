"""Answers become records: fields and words of tomorrow are no failure, and what is missing is the server's fault."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer

import tensord
from tensord._wire.eviction import parse_eviction
from tensord._wire.model import parse_model
from tensord._wire.region import parse_deletion, parse_descriptor, parse_verification
from tensord._wire.session import parse_session, parse_session_end
from tensord._wire.stats import parse_stats
from tensord._wire.tensors import TensorInfos, TensorsByName, to_row

TIME = "2026-11-21T12:00:00.000Z"
CLIENT = {
    "name": "trainer",
    "pid": None,
    "pid_namespace": None,
    "namespace_pid": None,
    "hostname": None,
    "version": None,
    "labels": {"job": "7"},
}
REGION: dict[str, Any] = {
    "id": "reg_a",
    "model": "m",
    "name": "w",
    "version": "2",
    "pending_name": None,
    "state": "draining",
    "revision": 3,
    "owner": {"kind": "linger", "linger_ms": 0, "handoff_ms": 5},
    "session": None,
    "expires_at": None,
    "evictable": True,
    "labels": {"a": "b"},
    "storage": {
        "kind": "shm",
        "format": "safetensors",
        "shm_name": None,
        "path": "/dev/shm/x",
        "dev": "18446744073709551615",
        "ino": "4711",
        "byte_size": 4100,
        "maker_byte": True,
        "page_size": 4096,
    },
    "tensor_count": 1,
    "tensors": [
        {
            "name": "w",
            "dtype": "U8",
            "shape": [4],
            "byte_offset": 4096,
            "byte_size": 4,
            "aligned": True,
            "alias_of": "v",
            "logical": {"type": "Q4_K", "shape": [2, 256]},
        }
    ],
    "checksum": {"algorithm": "xxh3-64-tree", "chunk_bytes": 1 << 26, "value": "2d06800538d394c2"},
    "created_at": TIME,
    "sealed_at": TIME,
    "last_used_at": TIME,
    "in_use": True,
    "has_writers": False,
    "lease_barred": False,
    "leases": 1,
    "holders": [{"session": "ses_a", "client": CLIENT, "mappings": 2, "writable": False}],
    "unknown_holders": True,
    "drain": {"reason": "deleted", "waits_for": "lease"},
}
MODEL = {
    "name": "m",
    "pools": [{"pool": "host", "limit_bytes": None, "used_bytes": 1, "draining_bytes": 2}],
    "regions": 3,
    "revision": 4,
    "created_at": TIME,
    "workers": 2,
}
SESSION = {
    "id": "ses_a",
    "name": None,
    "client": CLIENT,
    "quota_bytes": None,
    "used_bytes": 5,
    "regions": 1,
    "ttl_ms": 30_000,
    "held": True,
    "expires_at": None,
    "created_at": TIME,
}
STATS: dict[str, Any] = {
    "instance": "default",
    "version": "0.1.0",
    "epoch": 7,
    "pools": [
        {
            "pool": "host",
            "limit_bytes": 1,
            "used_bytes": 2,
            "draining_bytes": 3,
            "available_bytes": 5,
            "reserve_bytes": 2,
            "unaccounted_bytes": -6,
        },
    ],
    "journal_bytes": 4,
    "inodes": {"used": 1, "free": 2},
    "regions": {"creating": 1, "open": 2, "sealing": 3, "sealed": 4, "draining": 5},
    "models": 1,
    "sessions": 2,
    "claims": 3,
    "leases": 4,
    "http": {"requests": 1, "received_bytes": 2, "sent_bytes": 3},
}
EVICTION = {
    "dry_run": True,
    "enough": False,
    "freed_bytes": 10,
    "evicted": [{"region": "reg_a", "model": "m", "name": None, "bytes": 10, "last_used_at": TIME}],
    "kept": [{"region": "reg_b", "model": "m", "name": "w", "bytes": 20, "reason": "leased"}],
}
ANSWERS: list[tuple[Callable[[Any], Any], dict[str, Any]]] = [
    (parse_descriptor, REGION),
    (parse_verification, {"ok": None, "algorithm": "xxh3-64-tree", "expected": None, "actual": "2d06800538d394c2"}),
    (parse_deletion, {"state": "deleted", "freed_bytes": 4096}),
    (parse_model, MODEL),
    (parse_session, SESSION),
    (parse_session_end, {"state": "deleted", "freed_bytes": 1, "regions": 2}),
    (parse_stats, STATS),
    (parse_eviction, EVICTION),
]
each_answer = pytest.mark.parametrize(("parse", "answer"), ANSWERS, ids=[parse.__name__ for parse, _ in ANSWERS])


def _with_more(value: Any) -> Any:
    """The same, with a field that no version knows in every object whose keys are not somebody's own."""
    if isinstance(value, list):
        return [_with_more(item) for item in value]
    if not isinstance(value, dict):
        return value
    more = {key: item if key in ("labels", "logical") else _with_more(item) for key, item in value.items()}
    return {**more, "field_of_tomorrow": {"deep": [1]}}


@each_answer
def test_an_answer_becomes_a_record_that_does_not_change(parse: Callable[[Any], Any], answer: dict[str, Any]) -> None:
    record = parse(copy.deepcopy(answer))
    assert record == parse(answer) == pickle.loads(pickle.dumps(record))
    for name in type(record).__slots__:
        with pytest.raises(AttributeError):
            setattr(record, name, None)
    for name in set(answer) & set(type(record).__slots__):
        if not isinstance(answer[name], (dict, list)):
            assert getattr(record, name) == answer[name], name


@each_answer
def test_fields_of_tomorrow_are_passed_over_and_kept(parse: Callable[[Any], Any], answer: dict[str, Any]) -> None:
    record = parse(_with_more(answer))
    assert record == parse(answer)
    if hasattr(record, "raw"):
        assert record.raw["field_of_tomorrow"] == {"deep": [1]}


@each_answer
def test_an_answer_without_what_is_needed_is_the_servers_fault(
    parse: Callable[[Any], Any], answer: dict[str, Any]
) -> None:
    for broken in (None, [], "text", 5, {}):
        with pytest.raises(tensord.ServerFault, match="Cannot read the server's answer: it is no"):
            parse(broken)


def test_a_tensor_without_what_is_needed_is_the_servers_fault_when_it_is_asked_for() -> None:
    whole = REGION["tensors"][0]
    region = parse_descriptor({**REGION, "tensors": [whole, {**whole, "name": "broken", "byte_offset": None}]})
    assert region.tensors is not None
    assert (len(region.tensors), region.tensors[0].name) == (2, "w")
    with pytest.raises(tensord.ServerFault, match="it is no tensor"):
        region.tensors[1]
    for broken in ("w", [1], [{}], [{"name": ["w"]}]):
        with pytest.raises(tensord.ServerFault):
            parse_descriptor({**REGION, "tensors": broken})


def test_rows_of_all_tensors_hold_what_their_records_do_or_are_the_servers_fault() -> None:
    whole = {**REGION["tensors"][0], "alias_of": None}
    listed = [whole, {**whole, "name": "alias", "alias_of": "w"}, {**whole, "name": "other", "alias_of": "elsewhere"}]

    def by_name(tensors: list[dict[str, Any]]) -> TensorsByName:
        found = parse_descriptor({**REGION, "tensors": tensors}).tensors
        assert isinstance(found, TensorInfos)
        return found.by_name

    tensors = by_name(listed)
    assert [(name, dtype, tuple(shape), *bytes_) for name, dtype, shape, *bytes_ in tensors.rows()] == [
        to_row(info) for info in tensors.values()
    ]
    assert tensors.aliases() == {"alias": "w"}
    assert (by_name([]).rows(), by_name([]).aliases()) == ([], {})
    for key, broken in (
        ("dtype", None),
        ("dtype", ["U8"]),
        ("shape", 4),
        ("shape", ["4"]),
        ("shape", [None]),
        ("byte_offset", None),
        ("byte_offset", "4096"),
        ("byte_size", 4.5),
    ):
        with pytest.raises(tensord.ServerFault, match="it is no tensors"):
            by_name([whole, {**whole, "name": "broken", key: broken}]).rows()
    for key in ("dtype", "shape", "byte_offset", "byte_size"):
        with pytest.raises(tensord.ServerFault):
            by_name([{each: value for each, value in whole.items() if each != key}]).rows()
    with pytest.raises(tensord.ServerFault):
        by_name([{**whole, "alias_of": ["w"]}]).aliases()


def test_tensors_are_a_sequence_of_records_that_equals_their_tuple_and_is_pickled() -> None:
    whole = REGION["tensors"][0]
    region = parse_descriptor({**REGION, "tensors": [{**whole, "name": name} for name in ("b", "a", "c")]})
    tensors = region.tensors
    assert tensors is not None
    assert [info.name for info in tensors] == ["b", "a", "c"]
    assert tensors[1:] == tuple(tensors)[1:]
    assert tensors == tuple(tensors)
    assert tensors != tuple(tensors)[1:]
    assert hash(tensors) == hash(tuple(tensors))
    assert pickle.loads(pickle.dumps(tensors)) == tensors
    assert repr(tensors) == repr(tuple(tensors))


def test_records_have_records_inside() -> None:
    region = parse_descriptor(REGION)
    trainer = tensord.ClientDescriptor("trainer", None, None, None, None, None, {"job": "7"})
    assert region.owner == tensord.Owner("linger", linger_ms=0, handoff_ms=5)
    assert region.storage == tensord.Storage("shm", "/dev/shm/x", None, (1 << 64) - 1, 4711, 4100, maker_byte=True)
    assert region.tensors == (tensord.TensorInfo("w", "U8", (4,), 4096, 4, "v", {"type": "Q4_K", "shape": [2, 256]}),)
    assert region.checksum == tensord.Checksum("xxh3-64-tree", 1 << 26, "2d06800538d394c2")
    assert region.holders == (tensord.Holder("ses_a", trainer, 2, writable=False),)
    assert region.drain == tensord.Drain("deleted", "lease")
    assert parse_session(SESSION).client == trainer
    assert parse_stats(STATS).pools == (tensord.ServerPool("host", 1, 2, 3, 5, -6, 2),)
    assert parse_model(MODEL).pools == (tensord.Pool("host", None, 1, 2),)
    assert parse_stats(STATS).inodes == tensord.InodeStats(1, 2)
    assert parse_stats(STATS).regions == tensord.RegionStats(1, 2, 3, 4, 5)
    assert parse_stats(STATS).http == tensord.HttpStats(1, 2, 3)
    assert parse_eviction(EVICTION).evicted == (tensord.EvictedRegion("reg_a", "m", None, 10, TIME),)
    assert parse_eviction(EVICTION).kept == (tensord.KeptRegion("reg_b", "m", "w", 20, "leased"),)


def test_an_item_of_a_list_says_nothing_of_tensors_and_what_the_kernel_knows() -> None:
    detail = ("tensors", "in_use", "has_writers", "lease_barred", "leases", "holders", "unknown_holders", "drain")
    region = parse_descriptor({key: value for key, value in REGION.items() if key not in detail})
    assert [getattr(region, name) for name in detail] == [None] * len(detail)
    assert region.tensor_count == 1


def test_a_region_of_tomorrow_is_read_and_only_refused_where_it_would_be_mapped(tmp_path: Path) -> None:
    answer = {
        **REGION,
        "state": "open",
        "owner": {"kind": "orbit", "orbit_ms": 5},
        "storage": {"kind": "moon", "path": None, "byte_size": 4100},
        "tensors": [{**REGION["tensors"][0], "dtype": "F2"}],
        "checksum": {"algorithm": "tides", "chunk_bytes": 1, "value": "x"},
    }
    with (
        FakeServer(tmp_path / "s", lambda _: (200, answer)),
        tensord.connect(f"unix://{tmp_path}/s", session=False) as client,
    ):
        region = client.get("w", model="m")
        assert (region.storage.kind, region.storage.path, region.owner.kind) == ("moon", None, "orbit")
        assert [tensor.dtype for tensor in region.tensors or ()] == ["F2"]
        for asked in ("w", region):
            with pytest.raises(tensord.FeatureUnavailable, match="its storage is moon, want shm"):
                client.attach(asked, model="m")
