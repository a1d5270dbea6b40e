"""A worker with the real model: its weights are the region's own memory, and with them it embeds the demo's sentences.

It hears ``embed``, ``measure`` (how much private memory came on top of the libraries), ``look <tensor> <row>``,
``copy`` (load the weights as a copy of its own, embed with them, and drop them) and ``stop``.
"""

from __future__ import annotations

import hashlib
import sys
import time
from itertools import chain

import tensord
import torch
from embedding import FOLDER, SENTENCES, embed, make_skeleton, make_tokenizer, read_config, warm_up
from safetensors.torch import load_model
from talk import hear, private_bytes, say
from transformers import BertModel


def use_weights(model: BertModel, tensors: dict[str, torch.Tensor]) -> None:
    """Makes ``tensors`` the parameters of ``model``, without copying any."""
    # Two buffers belong to the model and not to its state: the file has the one, and the other is all zeros.
    model.embeddings.position_ids = tensors.pop("embeddings.position_ids")
    model.embeddings.token_type_ids = torch.zeros_like(model.embeddings.position_ids)
    model.load_state_dict(tensors, assign=True)


def load_copy() -> BertModel:
    """The same model with a copy of the weights of its own, as safetensors loads a file into a model."""
    model = BertModel(read_config()).eval()
    # Not strict: what is one more tensor to the file, position_ids, is a buffer outside of its state to the model.
    load_model(model, FOLDER / "model.safetensors", strict=False)
    return model


tokenizer = make_tokenizer()
warm_up()
before = private_bytes()
begin = time.perf_counter()
region = tensord.attach(sys.argv[1], timeout=30)
model = make_skeleton()
use_weights(model, region.state_dict())
ready_ms = (time.perf_counter() - begin) * 1e3

owned = list(chain(model.named_parameters(), model.named_buffers()))
say(
    ready_ms=ready_ms,
    tensors=len(owned),
    shared=sum(name in region and tensor.data_ptr() == region[name].bytes().ctypes.data for name, tensor in owned),
    on_meta=sum(tensor.is_meta for _, tensor in owned),
)
while True:
    match hear().split():
        case ["embed"]:
            say(embeddings=embed(model, tokenizer, SENTENCES).tolist())
        case ["measure"]:
            say(grown=private_bytes() - before)
        case ["look", name, row]:
            tensor = region[name]
            say(row=tensor.numpy()[int(row)].tolist(), sha256=hashlib.sha256(tensor.bytes()).hexdigest())
        case ["copy"]:
            held = private_bytes()
            copy = load_copy()
            say(embeddings=embed(copy, tokenizer, SENTENCES).tolist(), grown=private_bytes() - held)
            del copy
        case ["stop"]:
            break
region.close()
say()
