"""The Python half of copies.ts: four workers load one model in every way; what they then take of the machine's memory.

Usage: copies.py <url> <bytes>. Prints one JSON object: for each way, the workers' proportional set size beyond what the same
processes took before they loaded, over the bytes that each of them uses.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensord
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

WORKERS = 4


def touch(tensors):
    """Reads every page: what is mapped and never looked at takes nothing."""
    for tensor in tensors.values():
        tensor.view(torch.uint8).view(-1)[::4096].sum().item()
    return tensors


def cast(folder):
    return {
        name: tensor.to(torch.bfloat16)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }


def mapped_by_safetensors(folder, _client):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict


def read_by_torch_load(folder, _client):
    return torch.load(folder / "model.pt", weights_only=True)


def in_a_region(folder, client):
    return client.get_or_create(
        "unconverted", lambda: mapped_by_safetensors(folder, client)
    ).state_dict()


def cast_by_each(folder, _client):
    return cast(folder)


def cast_once_in_a_region(folder, client):
    return client.get_or_create("cast", lambda: cast(folder)).state_dict()


WAYS = {
    way.__name__: way
    for way in (
        mapped_by_safetensors,
        read_by_torch_load,
        in_a_region,
        cast_by_each,
        cast_once_in_a_region,
    )
}


def work(way, folder, url):
    """A worker: says that it is there, loads when it is told to, says the bytes that it uses, and stays until it is told to go."""
    client = tensord.connect(url)
    client.stats()
    print(json.dumps("there"), flush=True)
    sys.stdin.readline()
    tensors = touch(WAYS[way](folder, client))
    print(json.dumps(sum(tensor.nbytes for tensor in tensors.values())), flush=True)
    sys.stdin.readline()


def fork(tensors, stay):
    """Workers of a master: each reads what the master has, tells, and stays until the master, who keeps ``stay`` open, goes."""
    pids = []
    reading, writing = os.pipe()
    for _ in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            os.close(stay[1])
            touch(tensors)
            os.write(writing, b".")
            os.read(stay[0], 1)
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(reading, 1)
    return pids


def lead(folder):
    """A master that forks its workers, as ``gunicorn --preload`` does: without the model, then with it."""
    # The threads of torch do not come along in a fork.
    torch.set_num_threads(1)
    stay = os.pipe()
    idle = fork({}, stay)
    print(json.dumps([[os.getpid(), *idle], 0]), flush=True)
    sys.stdin.readline()
    tensors = cast(folder)
    pids = fork(tensors, stay)
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(json.dumps([[os.getpid(), *idle, *pids], size]), flush=True)
    sys.stdin.readline()
    os._exit(0)


def measure_forks(folder):
    command = [sys.executable, __file__, "master", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    master = subprocess.Popen(command, **pipes)

    def taken():
        pids, size = json.loads(master.stdout.readline())
        return sum(map(proportional_bytes, pids)), size

    before, _ = taken()
    master.stdin.write("\n")
    master.stdin.flush()
    after, size = taken()
    master.stdin.close()
    master.wait()
    return (after - before) / size


def proportional_bytes(pid):
    """What a process takes, pages that it shares counted by their share: proc(5), smaps_rollup."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss of {pid}")


def measure(way, folder, url):
    command = [sys.executable, __file__, "worker", way, str(folder), url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]
    heard = lambda: [json.loads(worker.stdout.readline()) for worker in workers]
    taken = lambda: sum(proportional_bytes(worker.pid) for worker in workers)

    def say():
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()

    heard()
    before = taken()
    say()
    used = heard()
    after = taken()
    say()
    for worker in workers:
        worker.wait()
    return (after - before) / used[0]


def main():
    url, size = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows = size // 4 // 1024 // 8
        random = np.random.default_rng(0)
        model = {
            f"w{i}": torch.from_numpy(random.random((rows, 1024), np.float32))
            for i in range(8)
        }
        save_file(model, folder / "model.safetensors")
        torch.save(model, folder / "model.pt")
        copies = {way: measure(way, folder, url) for way in WAYS}
        print(json.dumps({**copies, "cast_by_a_master_that_forks": measure_forks(folder)}))


if sys.argv[1] == "master":
    lead(pathlib.Path(sys.argv[2]))
elif sys.argv[1] == "worker":
    work(sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4])
else:
    main()
