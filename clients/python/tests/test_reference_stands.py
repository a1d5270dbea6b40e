"""A region whose public name a stock reader took away for a moment stands, and who can ask its server is told so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from harness import Server

import tensord
from tensord._mapping.attach import STANDING_TRIES, Asked, Mismatch, Place, open_unleased

ROUNDS = 20


def test_a_reference_opens_in_the_moment_in_which_its_name_is_gone(client: tensord.Client) -> None:
    with client.create("r", np.arange(5), ttl=60) as region:
        region.seal(stock_writable=True)
        reference, path = region.ref(), region.descriptor.storage.path
        assert path is not None
        for _ in range(ROUNDS):
            os.unlink(path)
            with client.open(reference) as tensor:
                assert tensor.numpy().tolist() == [0, 1, 2, 3, 4]
            os.unlink(path)
            with region.lock_read(timeout=180):
                pass


def test_a_slot_opens_in_the_moment_in_which_its_rings_name_is_gone(client: tensord.Client) -> None:
    with client.ring(ttl=60, slots=2, slot_bytes=64) as ring, client.rings() as rings:
        path = ring.region.descriptor.storage.path
        assert path is not None
        for number in range(ROUNDS):
            reference = ring.put([number])
            for open_reference in (client.open, rings.open):
                os.unlink(path)
                with open_reference(reference) as tensor:
                    assert tensor.numpy().tolist() == [number]


def test_a_reference_to_a_region_that_is_gone_is_stale(client: tensord.Client) -> None:
    with client.create("r", [1], ttl=60) as region:
        reference = region.ref()
        client.delete(region)
        with pytest.raises(tensord.StaleRef):
            region.lock_read()
        with pytest.raises(tensord.StaleRef, match="cannot be opened here"):
            client.open(reference)


def test_a_gone_reference_waits_for_no_server() -> None:
    server = Server()
    server.start()
    try:
        with server.connect(retry=3600, session=False) as client, client.create("r", [1], ttl=60) as region:
            reference = region.ref()
            server.signal(signal.SIGKILL)
            with client.open(reference) as tensor:
                assert tensor.numpy().tolist() == [1]
            os.unlink(reference.path or "")
            with pytest.raises(tensord.StaleRef):
                client.open(reference)
    finally:
        server.start()
        server.stop()


def test_who_says_that_a_region_stands_is_believed_a_few_times(make_place: Callable[..., Place]) -> None:
    asked: list[Place] = []

    def stands(place: Place) -> bool:
        asked.append(place)
        return True

    place = make_place()
    os.unlink(place.path)
    with pytest.raises(Mismatch, match="cannot be opened here"):
        open_unleased(replace(place, asked=Asked(stands)), writable=False)
    assert len(asked) == STANDING_TRIES


def test_a_file_that_is_there_is_asked_about_nowhere(make_place: Callable[..., Place]) -> None:
    place = make_place(b"short", mode=0o440)
    for broken, writable in ((replace(place, byte_size=4096), False), (place, True)):
        with pytest.raises(Mismatch, match="truncated" if not writable else "sealed"):
            open_unleased(replace(broken, asked=Asked(lambda _: pytest.fail("it was asked"))), writable=writable)
