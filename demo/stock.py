"""The same sentences by sentence-transformers itself, from the file: what the others' embeddings must equal."""

from __future__ import annotations

import torch
from embedding import FOLDER, SENTENCES
from sentence_transformers import SentenceTransformer
from talk import say

torch.set_num_threads(1)
model = SentenceTransformer(str(FOLDER), device="cpu")
say(embeddings=model.encode(list(SENTENCES)).tolist())
