"""A part of engines.ts: workers make one module of torch in every way: cast, packed by torch.ao, quantised by torchao.

Usage: torch_module.py <bytes>, of the server that TENSORD_URL names. Prints JSON: the rows of `lib/workers.py`.
"""

import json
import pathlib
import sys
import tempfile
import warnings
from importlib.metadata import version

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tensord
import torch
from lib.workers import measure_rows, serve
from safetensors.torch import load_file, save_file
from tensord.torch import private_bytes, share_module
from tensord.torch.reach import find_packed, find_tensors
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

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


def shared(path, dtype, change=lambda module: module):
    return share_module(
        f"module-{change.__name__.strip('<>')}-{str(dtype).removeprefix('torch.')}",
        lambda: change(loaded(path, dtype)),
        lambda: change(empty(path, dtype)),
        fingerprint={"dtype": str(dtype), "torchao": version("torchao")},
    )


def packed(module):
    return torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, inplace=True)


def quantised(module):
    """As `packed`, int8 weights and activations of 8 bits by row; the weights are tensors."""
    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return module


PACKED = "quantize_dynamic of torch.ao"
PACKED_AFTER = f"{PACKED} in each, share_module before"
QUANTISED = "quantize_ of torchao to int8"
WAYS = {
    "cast to bf16": lambda path: loaded(path, torch.bfloat16),
    "cast to bf16, share_module": lambda path: shared(path, torch.bfloat16),
    PACKED: lambda path: packed(loaded(path, torch.float32)),
    PACKED_AFTER: lambda path: packed(shared(path, torch.float32)),
    QUANTISED: lambda path: quantised(loaded(path, torch.float32)),
    f"{QUANTISED}, share_module": lambda path: shared(path, torch.float32, quantised),
}
BESIDE = {way: way.partition(", share_module")[0].removesuffix(" in each") if "share" in way else None for way in WAYS}


def weights_of(module):
    """Bytes of its tensors, as they would be stored: what is made of others, and packed, is that."""
    packed_bytes = sum(byte_size for _, byte_size in find_packed(module))
    return packed_bytes + sum(tensor.nbytes for tensor in {id(each): each for _, each in find_tensors(module)}.values())


def used_by(module):
    """Touches every page, and gives an answer: what is mapped and never looked at takes nothing."""
    table = module[0].weight
    table.view(torch.uint8).view(-1)[::4096].sum().item()
    with torch.inference_mode():
        answer = module(torch.arange(8)).float().sum().item()
    return {"answer": answer, "private_weights": private_bytes(module), "weights": weights_of(module)}


def work(way, path):
    torch.set_num_threads(1)
    # What torch itself takes at first use is no weight's.
    with torch.inference_mode():
        warm = layers(2).to(torch.bfloat16)
        warm(torch.arange(8))
        packed(layers(2))(torch.arange(8))
        quantised(layers(2).eval())(torch.arange(8))
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
        with tensord.connect() as client:
            command = [sys.executable, __file__, "worker"]
            rows = measure_rows(client, "torch module", BESIDE, lambda way: [*command, way, str(path)], {PACKED_AFTER})
            print(json.dumps(list(rows)))


if sys.argv[1] == "worker":
    work(sys.argv[2], pathlib.Path(sys.argv[3]))
else:
    main()
