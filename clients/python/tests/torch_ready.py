"""Imports torch, and the eight hundred modules that its meta device imports when it is used first."""

import torch

with torch.device("meta"):
    torch.nn.Linear(1, 1).to(torch.bfloat16)
