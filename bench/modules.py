"""The Python half of modules.ts: four workers make one module of torch in every way; what each then takes of the memory.

Usage: modules.py <bytes>, of the server that TENSORD_URL names. Prints one JSON object: for each way the bytes of the weights,
and of the workers beyond what the same processes took before: private ones, the largest of a worker; proportional ones, pages
that they share counted once, the sum of all; and what `private_bytes` says.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import tensord
import torch
from safetensors.torch import load_file, save_file
from tensord.torch import private_bytes, share_module

WORKERS = 4
WIDTH = 1024
warnings.filterwarnings("ignore", message="torch.ao.quantization is deprecated")
warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")


def layers(count):
    """Half of it is a table, half of it layers."""
    rows = count // 2 * WIDTH
    return torch.nn.Sequential(
        torch.nn.Embedding(rows, WIDTH),
        *(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count // 2)),
    )


def count_of(path):
    return int(path.suffixes[0][1:])


def loaded(path, dtype):
    with torch.device("meta"):
        module = layers(count_of(path))
    module.load_state_dict(load_file(path), assign=True)
    return module.to(dtype).eval()


def empty(path, dtype):
    with torch.device("meta"):
        return layers(count_of(path)).to(dtype).eval()


def shared(path, dtype):
    return share_module(
        f"module-{str(dtype).removeprefix('torch.')}",
        lambda: loaded(path, dtype),
        lambda: empty(path, dtype),
        fingerprint={"dtype": str(dtype)},
    )


def quantised(module):
    return torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, inplace=True)


WAYS = {
    "cast to bf16, stock": lambda path: loaded(path, torch.bfloat16),
    "cast to bf16, share_module": lambda path: shared(path, torch.bfloat16),
    "quantised, stock": lambda path: quantised(loaded(path, torch.float32)),
    "quantised in each, share_module before": lambda path: quantised(shared(path, torch.float32)),
}


def used_by(module):
    """Touches every page, and gives an answer: what is mapped and never looked at takes nothing."""
    table = module[0].weight
    table.view(torch.uint8).view(-1)[::4096].sum().item()
    with torch.inference_mode():
        answer = module(torch.arange(8)).float().sum().item()
    return {
        "answer": answer,
        "private_by_module": private_bytes(module),
        "weights": sum(each.nbytes for each in module.parameters()),
    }


def work(way, path):
    """A worker: says that it is there, makes the module when it is told to, says what it uses, and stays until it is told to go."""
    torch.set_num_threads(1)
    # What torch itself takes at first use is no weight's.
    with torch.inference_mode():
        warm = layers(2).to(torch.bfloat16)
        warm(torch.arange(8))
        quantised(layers(2))(torch.arange(8))
    del warm
    client = tensord.connect()
    client.stats()
    print(json.dumps("there"), flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    module = WAYS[way](path)
    used = used_by(module)
    print(json.dumps({**used, "seconds": time.monotonic() - begun}), flush=True)
    sys.stdin.readline()


def memory_of(pid):
    """Private and proportional bytes of a process: proc(5), smaps_rollup."""
    rows = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        rows[name] = int(value) * 1024
    # Of what is a file's only those pages are private that were written to.
    return {"private": rows["Anonymous:"], "proportional": rows["Pss:"]}


def measure(way, path):
    command = [sys.executable, __file__, "worker", way, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]

    def hear(worker):
        return json.loads(worker.stdout.readline())

    def tell(worker):
        worker.stdin.write("\n")
        worker.stdin.flush()

    def taken():
        return [memory_of(worker.pid) for worker in workers]

    for worker in workers:
        hear(worker)
    before = taken()
    used = []
    for worker in workers:
        tell(worker)
        # In turns: the first builds, the last finds what is there.
        used.append(hear(worker))
    after = taken()
    for worker in workers:
        tell(worker)
        worker.wait()
    more = [
        {what: bytes_after[what] - bytes_before[what] for what in bytes_after}
        for bytes_before, bytes_after in zip(before, after, strict=True)
    ]
    return {
        "weights": used[0]["weights"],
        "private": max(each["private"] for each in more),
        "proportional": sum(each["proportional"] for each in more),
        "private_by_module": max(each["private_by_module"] for each in used),
        "last_seconds": used[-1]["seconds"],
        "answers": len({each["answer"] for each in used}),
    }


def main():
    count = int(sys.argv[1]) // 4 // WIDTH // WIDTH
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / f"model.{count}.safetensors"
        torch.manual_seed(0)
        save_file(layers(count).state_dict(), path)
        print(json.dumps({way: measure(way, path) for way in WAYS}))


if sys.argv[1] == "worker":
    work(sys.argv[2], pathlib.Path(sys.argv[3]))
else:
    main()
