"""The Python half of second-worker.ts: how long a second worker takes from a model that is loaded to usable tensors of torch, and what
workers take of the memory that use it.

Usage: second_worker.py open|memory, of the server that TENSORD_URL names, in a folder below its model roots. Prints one JSON object.
"""

import json
import os
import pathlib
import statistics
import sys
import time
import traceback

import tensord
import torch
from lib.workers import measure, serve
from safetensors.torch import load_file

GIB = 2**30
ROUNDS = 5
FOLDER = pathlib.Path(os.environ["BENCH_FOLDER"])
REAL_BYTES = int(float(os.environ.get("BENCH_GIB", "1")) * GIB)
BF16 = torch.bfloat16


def place_of(i):
    """Where the layer is: two floors, since load_state_dict looks through all names for each module that is directly in another."""
    return f"block{i // 200}.layer{i % 200}"


def write_model(count, size, fill=False):
    """A safetensors file of ``count`` tensors of F32. Without ``fill`` it is sparse: it has a header, and takes no room on the disk."""
    path = FOLDER / f"model-{count}-{size}.safetensors"
    if path.exists():
        return path
    each = size // count // 4096 * 4096
    header = json.dumps(
        {
            f"{place_of(i)}.weight": {
                "dtype": "F32",
                "shape": [each // 4096, 1024],
                "data_offsets": [i * each, (i + 1) * each],
            }
            for i in range(count)
        }
    ).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        if fill:
            piece = (torch.arange(each // 4, dtype=torch.float32) / each).numpy().tobytes()
            for _ in range(count):
                file.write(piece)
        file.truncate(8 + len(header) + count * each)
    return path


def empty_module(path):
    """On meta, with the parameters of a model file: they are of one shape."""
    count, size = map(int, path.stem.split("-")[1:])
    module, rows = torch.nn.Module(), size // count // 4096
    for i in range(count):
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.empty(rows, 1024, device="meta"), requires_grad=False)
        block, name = place_of(i).split(".")
        if not hasattr(module, block):
            module.add_module(block, torch.nn.Module())
        getattr(module, block).add_module(name, layer)
    return module


def in_fork(work):
    """What ``work`` gives in a process of its own, in which everything that it needs is imported."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            if status != 0:
                traceback.print_exc()
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read()
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("a worker failed")
    return json.loads(said)


def timed(make):
    """Milliseconds by the clock, and of this process's own processor time."""
    begun = time.perf_counter(), time.process_time()
    made = make()
    took = [(time.perf_counter() - begun[0]) * 1e3, (time.process_time() - begun[1]) * 1e3]
    tensors = made if isinstance(made, dict) else dict(made.named_parameters())
    assert all(not tensor.is_meta and tensor.shape[1] == 1024 for tensor in tensors.values())
    return [*took, len(tensors)]


def open_by_us(name, _path):
    client = tensord.connect()
    client.stats()
    return timed(lambda: client.attach(name).state_dict())


def open_by_load_model(mode):
    def work(_name, path):
        client = tensord.connect()
        client.stats()
        return timed(lambda: client.load_model(path, mode=mode).state_dict())

    return work


def open_by_stock(_name, path):
    return timed(lambda: load_file(path))


def open_and_assign(_name, path):
    module = empty_module(path)

    def make():
        module.load_state_dict(load_file(path), assign=True)
        return module

    return timed(make)


def load(name, path, mode):
    tensord.connect().load_model(path, name=name, mode=mode, ttl=3600)


def measure_opening():
    torch.set_num_threads(1)
    shapes = [(10 * GIB, 600, "map"), (10 * GIB, 30_000, "map"), (GIB, 600, "map"), (GIB, 600, "copy")]
    found = []
    for size, count, mode in shapes:
        path = write_model(count, size)
        name = f"m-{mode}-{count}-{size}"
        in_fork(lambda name=name, path=path, mode=mode: load(name, path, mode))
        ways = {"attach by name": open_by_us, "load_model": open_by_load_model(mode)}
        if mode == "map":
            ways |= {"load_file": open_by_stock, "load_file, assign=True": open_and_assign}
        seen = {way: [] for way in ways}
        for _ in range(ROUNDS):
            # In turns, so that what disturbs one disturbs the next.
            for way, work in ways.items():
                *took, made = in_fork(lambda work=work, name=name, path=path: work(name, path))
                assert made == count, way
                seen[way].append(took)
        for way, times in seen.items():
            clock, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            found.append({"bytes": size, "count": count, "mode": mode, "way": way, "ms": clock, "cpu_ms": cpu})
    return found


def assigned(path, tensors):
    module = empty_module(path)
    module.load_state_dict(tensors, assign=True)
    return dict(module.named_parameters())


def copied(path):
    module = empty_module(path).to_empty(device="cpu")
    module.load_state_dict(load_file(path))
    return dict(module.named_parameters())


def cast(path):
    return {name: tensor.to(BF16) for name, tensor in load_file(path).items()}


def delete_all():
    with tensord.connect() as client:
        for region in client.list():
            client.delete(region)


MEMORY_WAYS = {
    "load_file": load_file,
    "load_file, copied into a module": copied,
    "load_file, assign=True": lambda path: assigned(path, load_file(path)),
    "load_model, mapped": lambda path: tensord.connect().load_model(path, mode="map").state_dict(),
    "load_model, copied": lambda path: tensord.connect().load_model(path, mode="copy").state_dict(),
    "load_file, cast to bf16": cast,
    "cast once, get_or_create": lambda path: tensord.connect().get_or_create("cast", lambda: cast(path)).state_dict(),
}


def use(tensors):
    """Every page: what is mapped and never looked at takes nothing."""
    read = sum(tensor.view(torch.uint8).view(-1)[::4096].sum().item() for tensor in tensors.values())
    return {"answer": read, "weights": sum(tensor.nbytes for tensor in tensors.values())}


def work(way, path):
    torch.set_num_threads(1)
    tensord.connect().stats()
    torch.empty(1024).to(BF16)
    serve(lambda: MEMORY_WAYS[way](path), use)


def measure_memory():
    # This process makes nothing itself: a worker's memory is what a fresh process takes, and a thread would be lost in a fork.
    path = pathlib.Path(in_fork(lambda: str(write_model(600, REAL_BYTES, fill=True))))
    found = []
    for way in MEMORY_WAYS:
        begun = time.perf_counter()
        workers, fifth, _ = measure(lambda way=way: work(way, path))
        print(f"{way}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        found.append(
            {
                "way": way,
                "weights": fifth["weights"],
                # The first loads, or casts.
                "private": max(each["private"] for each in workers[1:]),
                "proportional": sum(each["proportional"] for each in workers),
                "fifth_ms": fifth["made_seconds"] * 1e3,
                "answers": len({each["answer"] for each in (*workers, fifth)}),
            }
        )
        # One way after the other, so that no two of them take room at a time.
        in_fork(delete_all)
    path.unlink()
    return found


print(json.dumps({"open": measure_opening, "memory": measure_memory}[sys.argv[1]]()))
