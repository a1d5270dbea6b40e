"""How all-MiniLM-L6-v2 makes an embedding, as its model card says it: tokens, the model, the mean over the tokens, and
that scaled to length 1.

Where the weights come from is the caller's business: ``make_skeleton`` makes a model without any.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel
from weights import find_weights

FOLDER = find_weights().parent
# sentence_bert_config.json, `max_seq_length`.
MAXIMUM_TOKENS = 256
# Longest first, the order in which sentence-transformers computes a batch as well.
SENTENCES = (
    "One copy of every tensor is enough for the whole machine.",
    "A single set of weights serves all of the processes.",
    "The cat sleeps on the warm keyboard.",
)


def warm_up() -> None:
    """Runs a tiny model of the same kind, so that what the libraries keep for themselves is there before we measure."""
    torch.set_num_threads(1)
    tiny = BertConfig(vocab_size=64, hidden_size=24, num_hidden_layers=1, num_attention_heads=12, intermediate_size=96)
    ids = torch.ones(2, 8, dtype=torch.long)
    with torch.inference_mode():
        BertModel(tiny).eval()(ids, attention_mask=ids)


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.enable_truncation(MAXIMUM_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def read_config() -> BertConfig:
    return BertConfig(**json.loads((FOLDER / "config.json").read_text()))


def make_skeleton() -> BertModel:
    """The model without its weights: every parameter and buffer is on torch's meta device, where none has bytes."""
    with torch.device("meta"):
        return BertModel(read_config()).eval()


def embed(model: BertModel, tokenizer: Tokenizer, sentences: Sequence[str]) -> torch.Tensor:
    """Embeddings of unit length, F32 ``[sentences, 384]``."""
    encodings = tokenizer.encode_batch(list(sentences))
    ids = torch.tensor([encoding.ids for encoding in encodings])
    mask = torch.tensor([encoding.attention_mask for encoding in encodings])
    with torch.inference_mode():
        tokens = model(ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)
