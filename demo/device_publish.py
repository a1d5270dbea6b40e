"""Puts one tensor of the weights into the memory of a device; it stays for ten minutes, or as long as this process lives."""

from __future__ import annotations

import sys

import tensord
from safetensors.numpy import load_file
from talk import hear, say
from weights import digests_on_disk, find_weights

name, device, tensor = sys.argv[1:4]
is_owned = sys.argv[4:] == ["session"]
array = load_file(find_weights())[tensor]
# How long what it owns outlives it.
with tensord.connect(session_ttl=2) as client:
    with client.create(name, {tensor: array}, device=device, ttl=None if is_owned else 600) as region:
        descriptor = region.seal()
    say(region=descriptor.raw, digest=digests_on_disk(find_weights())[tensor])
    if is_owned:
        hear()
