"""A half of peers.ts: a second worker opens a model that is there, and reads every byte of it. Each time it is a fresh
process, whose imports are not counted; the ways take turns.

Usage: model.py <url> <bytes>. Prints one JSON object: milliseconds of opening, and of opening and reading, by way, and
what is not here.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

TENSORS = 600
ROUNDS = 7
NAME = "peers-model"


def open_tensord(where):
    import tensord
    import torch  # noqa: F401  # which state_dict imports

    client = tensord.connect(where, wait=10)
    yield
    yield client.attach(NAME).state_dict()


def open_safetensors(where):
    from safetensors.torch import load_file

    yield
    yield load_file(where)


def open_copied(where):
    from safetensors.torch import load

    yield
    with open(where, "rb") as file:
        yield load(file.read())


def open_ray(where):
    import ray

    address, key = json.loads(where)
    ray.init(address=address, log_to_driver=False, logging_level="error", namespace="peers")
    holder = ray.get_actor("holder")
    yield
    yield ray.get(ray.get(holder.get.remote())[0])
    assert key == NAME


WAYS = {
    "tensord": open_tensord,
    "safetensors load_file": open_safetensors,
    "read and safetensors load": open_copied,
    "Ray": open_ray,
}


def measure(title, where):
    """The second worker."""
    steps = WAYS[title](where)
    next(steps)
    begin = time.perf_counter()
    tensors = next(steps)
    opened = time.perf_counter()
    total = 0
    for tensor in tensors.values():
        total += int(np.bitwise_xor.reduce(np.asarray(tensor).view(np.int64), axis=None))
    end = time.perf_counter()
    print(json.dumps([(opened - begin) * 1e3, (end - opened) * 1e3, total]))
    sys.stdout.flush()
    os._exit(0)


def start_ray(tensors, size, folder):
    import ray

    ray.init(
        num_cpus=1,
        object_store_memory=2 * size + (256 << 20),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        namespace="peers",
        _temp_dir=folder,
    )

    class Holder:
        def __init__(self, kept):
            self._kept = kept

        def get(self):
            return self._kept

    # Kept for the caller, whose reference is what the others get.
    holder = ray.remote(Holder).options(name="holder").remote([ray.put(tensors)])
    ray.get(holder.get.remote())
    return json.dumps([ray.get_runtime_context().gcs_address, NAME]), holder


def main():
    import tensord
    import torch
    from safetensors.torch import save_file

    url, size = sys.argv[1], int(sys.argv[2])
    each = size // TENSORS // 8192 * 8192
    generator = np.random.default_rng(1)
    arrays = {
        f"layer.{i}.weight": generator.integers(0, 1 << 30, (each // 8192, 2048), np.int32) for i in range(TENSORS)
    }
    expected = 0
    for array in arrays.values():
        expected += int(np.bitwise_xor.reduce(array.view(np.int64), axis=None))
    absent, times = {}, {"open": {}, "open and read": {}}
    with tempfile.TemporaryDirectory(prefix="peers-") as folder, tensord.connect(url, wait=10) as client:
        file = f"{folder}/model.safetensors"
        save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
        with client.create(NAME, arrays, ttl=3600) as region:
            region.seal()
        where = {"tensord": url, "safetensors load_file": file, "read and safetensors load": file}
        holder = None
        try:
            where["Ray"], holder = start_ray(arrays, size, folder)
        except Exception as error:
            absent["Ray"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        del arrays
        for number in range(ROUNDS + 1):
            for title, place in where.items():
                if title in absent:
                    continue
                child = subprocess.run(
                    [sys.executable, __file__, "measure", title, place], stdout=subprocess.PIPE, text=True, check=False
                )
                if child.returncode != 0:
                    absent[title] = f"its process ended with {child.returncode}"
                    continue
                opened, read, total = json.loads(child.stdout.splitlines()[-1])
                assert total == expected, title
                if number > 0:
                    times["open"].setdefault(title, []).append(opened)
                    times["open and read"].setdefault(title, []).append(opened + read)
        if holder is not None:
            import ray

            ray.shutdown()
        client.delete(NAME)
    print(json.dumps({"times": times, "absent": absent}))


if sys.argv[1] == "measure":
    measure(*sys.argv[2:])
else:
    main()
