"""The systems that are measured beside each other: each brings an array to where other processes reach it, and back.

``put`` copies an array, as a user of the system would; ``share`` does so for ``get``, which returns an array over the
shared bytes, without a copy, and what lets go of it; ``drop`` ends it. ``None`` instead of a ``get``: it has no such
thing.
"""

import ctypes
import mmap
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

GIB = 1 << 30
START_SECONDS = 60.0
SHM = Path("/dev/shm")


class Tensord:
    title = "tensord"

    def __init__(self, url):
        import tensord

        self._client = tensord.connect(url, wait=10)

    def put(self, array):
        return self._client.create(None, array, ttl=600)

    def share(self, array):
        region = self._client.create(f"peers-{os.getpid()}-{array.nbytes}", array, ttl=600, if_exists="replace")
        region.seal()
        return region.name, region

    def get(self, key):
        region = self._client.attach(key[0])
        return region.numpy(), region.close

    def drop(self, key):
        region = key[1] if isinstance(key, tuple) else key
        region.close()
        self._client.delete(region)

    def stop(self):
        self._client.close()


class StandardLibrary:
    title = "SharedMemory"

    def put(self, array):
        memory = SharedMemory(create=True, size=array.nbytes)
        np.copyto(np.frombuffer(memory.buf, np.uint8, array.nbytes), array)
        return memory

    share = put

    def get(self, memory):
        attached = SharedMemory(name=memory.name)
        return np.frombuffer(attached.buf, np.uint8), attached.close

    def drop(self, memory):
        memory.close()
        memory.unlink()

    def stop(self):
        pass


class Torch:
    title = "torch"
    get = None

    def __init__(self):
        import torch

        torch.set_num_threads(1)
        self._torch = torch

    def put(self, array):
        # What share_memory_() does, without a copy before it.
        storage = self._torch.UntypedStorage._new_using_filename_cpu(array.nbytes)
        shared = self._torch.empty(0, dtype=self._torch.uint8).set_(storage, 0, (array.nbytes,), (1,))
        shared.copy_(self._torch.from_numpy(array))
        return shared

    def drop(self, shared):
        pass

    def stop(self):
        pass


class File:
    """A file of the tmpfs, by write(2): the least that one can do without keeping memory."""

    title = "write(2)"

    def put(self, array):
        fd, path = tempfile.mkstemp(prefix="peers.", dir=SHM)
        rest = array.data
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.close(fd)
        return path

    share = put

    def get(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        mapped = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(fd)
        return np.frombuffer(mapped, np.uint8), lambda: None

    def drop(self, path):
        os.unlink(path)

    def stop(self):
        pass


class Ray:
    title = "Ray"

    def __init__(self, store_bytes):
        import ray

        self._ray = ray
        self._folder = tempfile.TemporaryDirectory(prefix="ray-")
        ray.init(
            num_cpus=1,
            object_store_memory=store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=self._folder.name,
        )

    def put(self, array):
        return self._ray.put(array)

    share = put

    def get(self, key):
        return self._ray.get(key), lambda: None

    def drop(self, key):
        pass

    def stop(self):
        self._ray.shutdown()
        self._folder.cleanup()


class Vineyard:
    title = "vineyard"

    def __init__(self, store_bytes):
        import vineyard

        self._folder = tempfile.TemporaryDirectory(prefix="vineyard-")
        socket = f"{self._folder.name}/v.sock"
        with open(f"{self._folder.name}/log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vineyard", "--socket", socket, "--size", str(store_bytes), "--meta", "local"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            # Its client tells of each try in vain.
            while not os.path.exists(socket) and time.monotonic() < deadline and self._process.poll() is None:
                time.sleep(0.05)
            try:
                self._client = vineyard.connect(socket)
                return
            except Exception:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise

    def put(self, array):
        return self._client.put(array)

    share = put

    def get(self, key):
        return self._client.get(key), lambda: None

    def drop(self, key):
        self._client.delete(key)

    def stop(self):
        self._client.close()
        os.killpg(self._process.pid, 15)
        self._process.wait()
        self._folder.cleanup()


class Iceoryx2:
    """A sample that is loaned, written and sent to one subscriber, which takes it: an arena that is kept."""

    title = "iceoryx2"
    get = None

    def __init__(self, most_bytes):
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self._node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        service = (
            self._node.service_builder(iceoryx2.ServiceName.new(f"tensord-peers-{os.getpid()}"))
            .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
            .subscriber_max_buffer_size(1)
            .open_or_create()
        )
        self._publisher = service.publisher_builder().initial_max_slice_len(most_bytes).create()
        self._subscriber = service.subscriber_builder().create()

    def put(self, array):
        sample = self._publisher.loan_slice_uninit(array.nbytes)
        to_array(sample.payload())[:] = array
        sample.assume_init().send()
        return self._subscriber.receive()

    def drop(self, sample):
        sample.delete()

    def stop(self):
        self._publisher.delete()
        self._subscriber.delete()


def to_array(payload):
    """An array over a payload of iceoryx2's."""
    return np.ctypeslib.as_array((ctypes.c_ubyte * payload.len()).from_address(payload.data_ptr))


def start_all(url, most_bytes):
    """Every system that starts here, and why the others do not, by title."""
    # A warm arena has room for one that is kept and one that is made.
    store_bytes = max(3 * most_bytes, 256 << 20)
    makers = {
        Tensord: lambda: Tensord(url),
        StandardLibrary: StandardLibrary,
        Torch: Torch,
        File: File,
        Ray: lambda: Ray(store_bytes),
        Vineyard: lambda: Vineyard(store_bytes),
        Iceoryx2: lambda: Iceoryx2(most_bytes),
    }
    systems, absent = [], {}
    for kind, make in makers.items():
        try:
            systems.append(make())
        except Exception as error:
            absent[kind.title] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return systems, absent
