"""References come from other processes: what is not exactly one is refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

import tensord

TOKEN = "abcdefghijklmnopqrstuvwxyz"
GOOD: dict[str, Any] = {
    "v": 1,
    "storage": "shm",
    "instance": "a1",
    "region": f"reg_{TOKEN}",
    "path": f"/dev/shm/tensord.a1.{TOKEN}",
    "device_uuid": None,
    "dev": "27",
    "ino": "4711",
    "byte_offset": 4096,
    "byte_size": 24,
    "dtype": "F32",
    "shape": [2, 3],
    "generation": 0,
}


def test_a_reference_survives_every_form() -> None:
    ref = tensord.TensorReference.from_dict(GOOD)
    assert ref.to_dict() == GOOD
    assert (ref.dev, ref.ino, ref.shape) == (27, 4711, (2, 3))
    assert tensord.TensorReference.from_json(ref.to_json()) == ref
    assert tensord.TensorReference.from_json(ref.to_json().encode()) == ref
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert len({ref, tensord.TensorReference.from_dict(GOOD)}) == 1


def test_a_scalar_and_an_empty_tensor_have_references() -> None:
    for shape, size in ([], 4), ([0, 7], 0):
        assert tensord.TensorReference.from_dict(GOOD | {"shape": shape, "byte_size": size}).byte_size == size


@pytest.mark.parametrize(
    "change",
    # What each one tries is in its name: a type, a bound, or an agreement between two fields.
    [
        {"v": 0},
        {"v": -1},
        {"v": None},
        {"v": True},
        {"v": "1"},
        {"v": 1.0},
        {"storage": None},
        {"storage": ["shm"]},
        {"storage": ""},
        {"storage": "a" * 65},
        {"storage": "cuda vmm"},
        {"storage": "cuda_vmm", "path": ""},
        {"storage": "cuda_vmm", "path": None},
        {"storage": "cuda_vmm", "path": None, "device_uuid": "GPU-0", "instance": "A1"},
        {"storage": "cuda_vmm", "path": "/" * 4097},
        {"storage": "cuda_vmm", "device_uuid": 0},
        {"storage": "cuda_vmm", "device_uuid": "a" * 129},
        {"storage": "cuda_vmm", "dev": None},
        {"storage": "cuda_vmm", "byte_size": 23},
        {"device_uuid": "GPU-0"},
        {"device_uuid": 0},
        {"instance": "b2"},
        {"instance": "A1"},
        {"instance": 5},
        {"region": "reg_"},
        {"region": "../../v1/models"},
        {"region": None},
        {"path": f"tensord.a1.{TOKEN}"},
        {"path": f"/dev/shm/../../etc/tensord.a1.{TOKEN}"},
        {"path": f"/dev//shm/tensord.a1.{TOKEN}"},
        {"path": f"/dev/shm/tensord.a1.{TOKEN}/"},
        {"path": f"/dev/shm/tensord.a1.{TOKEN}\n"},
        {"path": f"/dev/sh\0m/tensord.a1.{TOKEN}"},
        {"path": f"/{'x/' * 4096}tensord.a1.{TOKEN}"},
        {"path": "/etc/passwd"},
        {"path": f"/dev/shm/tensord.a1.{TOKEN.upper()}"},
        {"path": f"/dev/shm/tensord.a1.{TOKEN[:-1]}"},
        {"path": ["/dev/shm"]},
        {"path": None, "instance": "../a"},
        {"storage": "memfd"},
        {"storage": "memfd", "path": None, "device_uuid": "GPU-1"},
        {"dev": 27},
        {"dev": "-1"},
        {"dev": "0x1b"},
        {"dev": "²⁷"},
        {"ino": ""},
        {"ino": "9" * 21},
        {"ino": str(1 << 64)},
        {"byte_offset": -4096},
        {"byte_offset": 4096.0},
        {"byte_offset": True},
        {"byte_offset": 1 << 62},
        {"byte_offset": (1 << 53) - 1},
        {"byte_size": 23},
        {"byte_size": "24"},
        {"byte_size": -24},
        {"dtype": "F33"},
        {"dtype": "float32"},
        {"dtype": ["F32"]},
        {"shape": [2, -3]},
        {"shape": [-2, -3]},
        {"shape": [2, 3.0]},
        {"shape": [True, 6]},
        {"shape": "23"},
        {"shape": {"0": 6}},
        {"shape": [1] * 65},
        {"shape": [1 << 53, 0]},
        {"shape": [(1 << 53) - 1] * 64},
        {"dtype": "F4", "shape": [3], "byte_size": 1},
        {"generation": -1},
        {"generation": None},
        {"extra": 1},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_hostile_reference_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(tensord.ValidationFailed) as caught:
        tensord.TensorReference.from_dict(GOOD | change)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("field", sorted(GOOD))
def test_a_reference_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(tensord.ValidationFailed):
        tensord.TensorReference.from_dict({key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "5",
        '"x"',
        "{",
        "[" * 60_000,
        json.dumps(GOOD) + " " * 65_536,
        b"\xff\xfe",
        '{"v": %s}' % ("9" * 5000),
    ],
    ids=lambda text: repr(text[:10]),
)
def test_text_that_is_no_reference_is_refused(text: str | bytes) -> None:
    with pytest.raises(tensord.ValidationFailed):
        tensord.TensorReference.from_json(text)


@pytest.mark.parametrize("generation", [0, 4096])
@pytest.mark.parametrize(("storage", "path"), [("metal", None), ("SHM", None), ("s3", "/data/weights")])
def test_a_reference_to_storage_of_a_newer_server_is_passed_on_and_only_mapping_it_is_refused(
    client: tensord.Client, storage: str, path: str | None, generation: int
) -> None:
    newer = GOOD | {"storage": storage, "path": path, "device_uuid": "GPU-0", "generation": generation}
    ref = tensord.TensorReference.from_dict(newer | {"byte_offset": 8192})
    assert (ref.storage, ref.path, ref.device_uuid) == (storage, path, "GPU-0")
    assert tensord.TensorReference.from_json(ref.to_json()) == ref
    assert pickle.loads(pickle.dumps(ref)).to_dict() == newer | {"byte_offset": 8192}
    with client.rings() as rings:
        for open_one in (client.open, rings.open) if generation else (client.open,):
            with pytest.raises(tensord.FeatureUnavailable, match=f"its storage is {storage}, want shm"):
                open_one(ref)


def test_a_reference_in_its_first_form_is_read() -> None:
    first = {key: value for key, value in GOOD.items() if key not in ("storage", "device_uuid")}
    ref = tensord.TensorReference.from_dict(first)
    assert ref == tensord.TensorReference.from_dict(GOOD)
    assert ref.to_dict() == GOOD
    with pytest.raises(tensord.ValidationFailed, match="its fields"):
        tensord.TensorReference.from_dict(first | {"v": 2})


def test_a_reference_of_a_later_version_is_read_by_the_fields_of_this_one() -> None:
    later = GOOD | {"v": 7, "stride": [3, 1]}
    assert tensord.TensorReference.from_dict(later) == tensord.TensorReference.from_dict(GOOD)
    for field in GOOD:
        with pytest.raises(tensord.ValidationFailed):
            tensord.TensorReference.from_dict({key: value for key, value in later.items() if key != field})
    with pytest.raises(tensord.ValidationFailed, match="byte_size"):
        tensord.TensorReference.from_dict(later | {"byte_size": 23})


def test_a_reference_made_by_hand_is_checked_as_well() -> None:
    values = {key: value for key, value in GOOD.items() if key not in ("v", "storage", "device_uuid")}
    with pytest.raises(tensord.ValidationFailed, match="dev"):
        tensord.TensorReference(**values)
    ref = tensord.TensorReference(**(values | {"dev": 27, "ino": 4711, "shape": (2, 3)}))
    assert ref == tensord.TensorReference.from_dict(GOOD)
