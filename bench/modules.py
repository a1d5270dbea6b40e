"""The Python half of modules.ts: four workers make one module of torch in every way; what each then takes of the memory.

Usage: modules.py <bytes>, of the server that TENSORD_URL names. Prints one JSON object: what `lib/workers.py` measures, for each way.
"""

import json
import pathlib
import sys
import tempfile
import warnings

import tensord
import torch
from lib.workers import measure, serve, sum_up
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
    torch.set_num_threads(1)
    # What torch itself takes at first use is no weight's.
    with torch.inference_mode():
        warm = layers(2).to(torch.bfloat16)
        warm(torch.arange(8))
        quantised(layers(2))(torch.arange(8))
    del warm
    client = tensord.connect()
    client.stats()
    serve(lambda: WAYS[way](path), used_by)


def main():
    count = int(sys.argv[1]) // 4 // WIDTH // WIDTH
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / f"model.{count}.safetensors"
        torch.manual_seed(0)
        save_file(layers(count).state_dict(), path)
        command = [sys.executable, __file__, "worker"]
        print(json.dumps({way: sum_up(measure([*command, way, str(path)], WORKERS)) for way in WAYS}))


if sys.argv[1] == "worker":
    work(sys.argv[2], pathlib.Path(sys.argv[3]))
else:
    main()
