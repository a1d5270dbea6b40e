"""A create or seal whose answer is lost: what the client finds out before it speaks. The server is a fake one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Answer, FakeServer, Request

import tensord
from tensord._mapping.attach import Place

MakePlace = Callable[..., Place]


def _describe(place: Place, **changes: Any) -> dict[str, Any]:
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return {
        "id": place.region,
        "model": "default",
        "name": "w",
        "state": "open",
        "revision": 1,
        "owner": {"kind": "persist"},
        "expires_at": None,
        "labels": {},
        "storage": {
            "kind": "shm",
            "path": place.path,
            "shm_name": None,
            "dev": str(place.dev),
            "ino": str(place.ino),
            "byte_size": place.byte_size,
        },
        "tensor_count": 1,
        "tensors": [{"name": "data", "dtype": "U8", "shape": [4], "byte_offset": 4096, "byte_size": 4}],
        "checksum": None,
        "created_at": now.replace("+00:00", "Z"),
        "sealed_at": None,
        "in_use": False,
        "has_writers": False,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "created"),
    [
        ({}, True),
        ({"in_use": True}, False),
        ({"created_at": "2020-01-01T00:00:00.000Z"}, False),
        ({"state": "sealed"}, False),
    ],
)
def test_a_repeated_create_knows_its_own_region(
    tmp_path: Path, make_place: MakePlace, changes: dict[str, Any], created: bool
) -> None:
    place = make_place(bytes(4100))

    def answer(request: Request) -> Answer:
        if request.method == "POST" and len(fake.requests) == 1:
            return None
        return 200, _describe(place, **changes)

    with FakeServer(tmp_path / "s", answer) as fake, tensord.connect(f"unix://{tmp_path}/s", session=False) as client:
        with client.create("w", np.arange(1, 5, dtype=np.uint8), persist=True, if_exists="attach") as region:
            assert region.created is created
            assert region.numpy().tolist() == ([1, 2, 3, 4] if created else [0, 0, 0, 0])


def test_an_existing_region_is_not_taken_for_ones_own_without_a_lost_answer(
    tmp_path: Path, make_place: MakePlace
) -> None:
    place = make_place(bytes(4100))
    with (
        FakeServer(tmp_path / "s", lambda _: (200, _describe(place))) as fake,
        tensord.connect(f"unix://{tmp_path}/s", session=False) as client,
        client.create("w", np.arange(1, 5, dtype=np.uint8), persist=True, if_exists="attach") as region,
    ):
        assert region.created is False
        assert len(fake.requests) == 1


@pytest.mark.parametrize("if_exists", ["fail", "replace"])
def test_a_create_that_could_find_itself_in_the_way_is_not_repeated(tmp_path: Path, if_exists: Any) -> None:
    with (
        FakeServer(tmp_path / "s", lambda _: None) as fake,
        tensord.connect(f"unix://{tmp_path}/s", session=False) as client,
    ):
        with pytest.raises(tensord.ServerUnavailable, match="is not known"):
            client.create("w", [1], persist=True, if_exists=if_exists)
        assert len(fake.requests) == 1


def test_a_repeated_seal_finds_the_region_sealed(tmp_path: Path, make_place: MakePlace) -> None:
    place = make_place(bytes(4100))

    def answer(request: Request) -> Answer:
        seals = [made for made in fake.requests if made.path.endswith("/seal")]
        if request.method == "POST" and len(seals) == 1:
            return None
        if request.method == "POST":
            return 409, {"code": "region-sealed", "detail": "Cannot seal"}
        return 200, _describe(place, state="sealed" if seals else "open")

    with FakeServer(tmp_path / "s", answer) as fake, tensord.connect(f"unix://{tmp_path}/s", session=False) as client:
        with client.attach("w", writable=True) as region:
            assert region.seal().state == "sealed"
            assert not region.writable


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_repeated_seal_of_a_group_finds_all_of_it_sealed(
    tmp_path: Path, make_place: MakePlace, is_lost: bool
) -> None:
    place = make_place(bytes(4100))
    sealed = [f"reg_{letter * 26}" for letter in "ab"]

    def answer(request: Request) -> Answer:
        if request.method == "POST" and len(fake.requests) == 1:
            return None
        if request.method == "POST":
            return 409, {"code": "region-sealed", "detail": "Cannot seal"}
        # All of them are sealed or none by the lost request: one that was sealed alone is somebody else's doing.
        state = "sealed" if is_lost or request.path.endswith(sealed[0]) else "open"
        return 200, _describe(place, id=request.path.rpartition("/")[2], state=state)

    with FakeServer(tmp_path / "s", answer) as fake, tensord.connect(f"unix://{tmp_path}/s", session=False) as client:
        if is_lost:
            assert [region.id for region in client.seal(sealed)] == sealed
        else:
            with pytest.raises(tensord.RegionSealed):
                client.seal(sealed)


def test_a_repeated_delete_finds_the_region_gone(tmp_path: Path) -> None:
    def answer(_: Request) -> Answer:
        return None if len(fake.requests) == 1 else (404, {"code": "region-not-found", "detail": "Cannot find"})

    with FakeServer(tmp_path / "s", answer) as fake, tensord.connect(f"unix://{tmp_path}/s", session=False) as client:
        assert client.delete(f"reg_{26 * 'x'}") == tensord.Deletion("deleted", 0)
        with pytest.raises(tensord.RegionNotFound):
            client.delete(f"reg_{26 * 'x'}")


def test_a_change_of_a_revision_is_not_repeated_since_it_could_find_its_own(tmp_path: Path) -> None:
    with (
        FakeServer(tmp_path / "s", lambda _: None) as fake,
        tensord.connect(f"unix://{tmp_path}/s", session=False) as client,
    ):
        with pytest.raises(tensord.ServerUnavailable, match="is not known"):
            client.change(f"reg_{26 * 'x'}", ttl=5, if_match=1)
        with pytest.raises(tensord.ServerUnavailable, match="is not known"):
            client.change_model("m", memory_limit_bytes=1, if_match=1)
        assert len(fake.requests) == 2
