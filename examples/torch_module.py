"""gunicorn and torch: all workers use one copy of a model's weights. ``gunicorn --workers 4 torch_module:application``"""

import json
import os

import torch

from tensord.torch import private_bytes, share_module

CONFIG = {"words": 30_000, "width": 128, "seed": 1}
model = None


def build():
    """What takes long: loading, casting, fusing. One worker of this machine does it, with memory; others without."""
    torch.manual_seed(CONFIG["seed"])
    layers = torch.nn.Sequential(
        torch.nn.EmbeddingBag(CONFIG["words"], CONFIG["width"]), torch.nn.Linear(CONFIG["width"], 16)
    )
    return layers.to(torch.bfloat16).eval()


def application(environ, start_response):
    # At the first request, so that it is the worker's own, also under --preload.
    global model
    if model is None:
        model = share_module("example-torch-module", build, fingerprint=CONFIG, timeout=60)
    with torch.inference_mode():
        score = model(torch.tensor([[1, 2, 3]]))[0, 0].item()
    answer = {"pid": os.getpid(), "score": score, "private": private_bytes(model)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
