"""Regions on a device through a server, of several processes: on a stand-in for the driver, no evidence of what
a GPU does.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator

import pytest
from cuda_stand_in import CARD_BYTES, IMPORTED, LACKS_STAND_IN, UUIDS, StandIn, stand_in
from harness import Child, Server, wait_for

Worker = functools.partial(Child, imported=IMPORTED)

pytestmark = pytest.mark.skipif(LACKS_STAND_IN != "", reason=LACKS_STAND_IN or "there is one")

MAKE = """
with tensord.connect() as client:
    region = client.create("w", {"w": np.arange(1000, dtype=np.float32)}, device="cuda:0")
    region.seal()
    say(region["w"].ref().to_json())
    hear()
"""
READ = """
with tensord.connect() as client:
    region = client.attach("w", device="cuda", timeout=180)
    say([type(region).__name__, region.device_uuid, region.writable, float(region["w"].copy_to_host().sum())])
    ref = tensord.TensorReference.from_json(hear())
    with client.open(ref) as tensor:
        say(float(tensor.copy_to_host().sum()))
    hear()
    say(float(region["w"].copy_to_host().sum()))
    if hear():
        region.close()
        region = client.attach("w")
        say(float(region["w"].copy_to_host().sum()))
        hear()
    region.close()
"""


@pytest.fixture
def cuda() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


@pytest.fixture
def cuda_server(cuda: StandIn) -> Iterator[Server]:
    server = Server(**cuda.environ)
    server.start()
    yield server
    server.stop()


def _memory(cuda: StandIn) -> list[str]:
    return [each for each in cuda.in_use() if "memory" in each]


def test_two_workers_map_one_copy_and_it_is_gone_when_its_owner_and_its_readers_are(
    cuda: StandIn, cuda_server: Server
) -> None:
    environ = {**cuda.environ, **cuda_server.environ}
    with Worker(MAKE, environ=environ) as owner, Worker(READ, environ=environ) as reader:
        ref = owner.hear()
        assert reader.hear() == ["DeviceRegion", UUIDS[0], False, 499500.0]
        reader.say(ref)
        assert reader.hear() == 499500.0
        assert len(_memory(cuda)) == 1
        owner.kill()
        reader.say(True)
        # What is mapped stays.
        assert reader.hear() == 499500.0
        reader.kill()
        wait_for(lambda: _memory(cuda) == [], "the memory of the killed is free")


def test_workers_go_on_without_a_server_and_attach_again_when_it_is_back(cuda: StandIn, cuda_server: Server) -> None:
    environ = {**cuda.environ, **cuda_server.environ}
    make = MAKE.replace('device="cuda:0"', 'device="cuda:0", ttl=600')
    with Worker(make, environ=environ) as owner, Worker(READ, environ=environ) as reader:
        ref = owner.hear()
        reader.hear()
        reader.say(ref)
        reader.hear()
        cuda_server.signal(signal.SIGKILL)
        reader.say(True)
        assert reader.hear() == 499500.0
        cuda_server.start()
        reader.say(True)
        assert reader.hear() == 499500.0
        assert len(_memory(cuda)) == 1
        reader.say(None)
        reader.finish()
        with cuda_server.connect() as client:
            client.delete("w")
        owner.kill()
        wait_for(lambda: _memory(cuda) == [], "the memory is free")


def test_devices_are_records(cuda: StandIn, cuda_server: Server) -> None:
    with cuda_server.connect() as client:
        wait_for(lambda: client.devices().reason is None, "the driver has answered")
        found = client.devices()
        assert [device.uuid for device in found.items] == list(UUIDS)
        assert (found.cuda_version, found.driver_version) == ("13.0", None)
        first = client.device(UUIDS[0])
        assert first == found.items[0]
        assert (first.usable, first.handle_type, first.granularity, first.free_bytes) == (
            True,
            "posix_fd",
            2 << 20,
            None,
        )
        assert first.limit_bytes == first.total_bytes == CARD_BYTES


def test_a_creation_waits_for_a_driver_that_takes_its_time(cuda: StandIn) -> None:
    cuda.order("cuInit 1 hang 1000")
    server = Server(**cuda.environ)
    server.start()
    try:
        with Worker(MAKE, environ={**cuda.environ, **server.environ}) as owner:
            owner.hear()
            owner.kill()
    finally:
        server.stop()


COPY = """
told = []
with tensord.connect() as client:
    with client.create(None, {"w": np.arange(1000, dtype=np.float32)}, ttl=600) as source:
        source.seal(checksum=True)
        shared = dict(name="on-device", if_exists="attach", timeout=180, progress=lambda *each: told.append(each))
        with source.to_device("cuda:0", **shared) as region, source.to_device("cuda:0", **shared) as again:
            say([type(region).__name__, region.device_uuid, region.writable, region.state, region.id == again.id])
            say(float(region["w"].copy_to_host().sum()))
            say(client.verify(region).ok)
    hear()
"""


def test_a_region_is_copied_to_a_device_by_the_server_and_mapped_there(cuda: StandIn, cuda_server: Server) -> None:
    environ = {**cuda.environ, **cuda_server.environ}
    with Worker(COPY, environ=environ) as worker:
        assert worker.hear() == ["DeviceRegion", UUIDS[0], False, "sealed", True]
        assert worker.hear() == 499500.0
        assert worker.hear() is True
        assert len(_memory(cuda)) == 1
        worker.say(True)
