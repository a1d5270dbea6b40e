"""How fast weights come to a card, beside a bare copy from pinned memory: a row of ``docs/gpu-verification.md``."""

from __future__ import annotations

import time

from rows import Bench, row, to_mib

# The client itself pins nothing: CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int flags).
PINNED = """
import ctypes, time
from tensord._cuda.devices import find_usable_device
driver, device = find_usable_device(DEVICE)
with tensord.connect() as client:
    region = client.create(None, tensors={"w": ("U8", (BYTES,))}, device=DEVICE, ttl=3600)
    driver.push_context(driver.retain_context(device.ordinal))
    pinned = ctypes.c_void_p()
    result = ctypes.CDLL("libcuda.so.1").cuMemHostAlloc(ctypes.byref(pinned), ctypes.c_size_t(BYTES), 0)
    assert result == 0, result
    ctypes.memset(pinned, 7, BYTES)
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        driver.copy_to_device(region["w"].address, pinned.value, BYTES)
        driver.synchronize()
        times.append(time.perf_counter() - begin)
    client.delete(region.id)
    say(min(times))
"""


@row("A host region is copied to the device, over a bare copy of as many bytes from pinned memory")
def host_to_device(bench: Bench) -> str:
    # A context and a process are made for each copy; of two sizes the difference is what a byte costs.
    large = bench.card.region_bytes
    small = large // 2
    whole, half = (_copy_seconds(bench, size) for size in (large, small))
    with bench.child(PINNED) as child:
        bare = child.hear()
        child.finish()
    rest = max(whole - half, 1e-9) * large / (large - small)
    told = f"{to_mib(large)} in {whole:.2f} s, process, context, copy, read back and compared; pinned copy {bare:.3f} s"
    return f"{told}: {bare / whole:.2f} of its rate in all, {bare / rest:.2f} by the difference to {to_mib(small)}"


def _copy_seconds(bench: Bench, size: int) -> float:
    """The quickest of three, since the source's pages are warm after the first."""
    times = []
    with bench.server.connect() as client, client.create(None, tensors={"w": ("U8", (size,))}, ttl=3600) as source:
        source["w"].numpy()[:] = 7
        source.seal()
        for _ in range(3):
            begin = time.perf_counter()
            client.copy(source, name="w", device=bench.card.uuid, ttl=3600).wait()
            times.append(time.perf_counter() - begin)
            client.delete("w")
    return min(times)
