"""ONNX models for tests and for the benchmark, written field by field, so that none need be committed and no library of
models installed. Numbers of fields are those of onnx.proto3.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tensord.onnx.protobuf import to_field, to_varint

FLOAT, BOOL = 1, 9
_GRAPH_ATTRIBUTE = 5

Array = npt.NDArray[np.float32]


def number(field: int, value: int) -> bytes:
    return to_varint(field << 3) + to_varint(value)


def text(field: int, value: str) -> bytes:
    return to_field(field, value.encode())


def tensor(name: str, array: Array) -> bytes:
    dims = b"".join(number(1, size) for size in array.shape)
    return dims + number(2, FLOAT) + text(8, name) + to_field(9, array.astype("<f4").tobytes())


def outside(name: str, shape: tuple[int, ...], location: str, offset: int = 0) -> bytes:
    """A tensor whose bytes are in another file."""
    entries = {"location": location, "offset": str(offset), "length": str(4 * int(np.prod(shape)))}
    external = b"".join(to_field(13, text(1, key) + text(2, value)) for key, value in entries.items())
    return b"".join(number(1, size) for size in shape) + number(2, FLOAT) + text(8, name) + external + number(14, 1)


def node(kind: str, inputs: list[str], outputs: list[str], *attributes: bytes) -> bytes:
    names = b"".join(text(1, each) for each in inputs) + b"".join(text(2, each) for each in outputs)
    return names + text(4, kind) + b"".join(to_field(5, each) for each in attributes)


def branch(name: str, graph: bytes) -> bytes:
    """An attribute that is a graph."""
    return text(1, name) + to_field(6, graph) + number(20, _GRAPH_ATTRIBUTE)


def value(name: str, shape: tuple[int | str, ...], kind: int = FLOAT) -> bytes:
    dims = [number(1, size) if isinstance(size, int) else text(2, size) for size in shape]
    shapes = b"".join(to_field(1, each) for each in dims)
    return text(1, name) + to_field(2, to_field(1, number(1, kind) + to_field(2, shapes)))


def graph(nodes: list[bytes], tensors: list[bytes], inputs: list[bytes], outputs: list[bytes]) -> bytes:
    parts = [*(to_field(1, each) for each in nodes), text(2, "g"), *(to_field(5, each) for each in tensors)]
    return b"".join([*parts, *(to_field(11, each) for each in inputs), *(to_field(12, each) for each in outputs)])


def model(of: bytes) -> bytes:
    return number(1, 10) + to_field(7, of) + to_field(8, text(1, "") + number(2, 17))


def dense(width: int = 256, layers: int = 2, *, seed: int = 0, location: str | None = None) -> tuple[bytes, bytes]:
    """Layers of ``width`` to ``width``, ``x [rows, width]`` to ``y [rows, width]``; a convolution first, and a branch
    last, so that there are kernels of several kinds and weights in a graph inside. Where ``location`` is said, weights
    are in that file: the second bytes.
    """
    random = np.random.default_rng(seed)
    beside: list[bytes] = []

    def weights(name: str, *shape: int) -> bytes:
        array = (random.standard_normal(shape) / width**0.5).astype(np.float32)
        if location is None:
            return tensor(name, array)
        offset = sum(map(len, beside))
        beside.append(array.tobytes())
        return outside(name, shape, location, offset)

    nodes, tensors = [], []
    last = "x"
    for layer in range(layers):
        tensors += [weights(f"w{layer}", width, width), weights(f"b{layer}", width)]
        nodes += [
            node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"g{layer}"]),
            node("Relu", [f"g{layer}"], [f"r{layer}"]),
        ]
        last = f"r{layer}"
    tensors += [weights("whole", width, width), tensor("none", np.zeros((), np.float32))]
    nodes += [
        node("MatMul", [last, "whole"], ["m"]),
        node("ReduceSum", ["m"], ["sum"], text(1, "keepdims") + number(3, 0) + number(20, 2)),
        node("Greater", ["sum", "none"], ["positive"]),
    ]
    branches = [
        graph(
            [node("MatMul", ["m", f"in {name}"], [f"out {name}"])],
            [weights(f"in {name}", width, width)],
            [],
            [value(f"out {name}", ("rows", width))],
        )
        for name in ("then", "else")
    ]
    attributes = [branch(f"{name}_branch", each) for name, each in zip(("then", "else"), branches, strict=True)]
    nodes.append(node("If", ["positive"], ["y"], *attributes))
    whole = graph(nodes, tensors, [value("x", ("rows", width))], [value("y", ("rows", width))])
    return model(whole), b"".join(beside)


def convolution(channels: int = 64) -> bytes:
    """``x [1, channels, 8, 8]`` to ``y`` of the same shape."""
    random = np.random.default_rng(1)
    kernel = (random.standard_normal((channels, channels, 3, 3)) / channels).astype(np.float32)
    pads = text(1, "pads") + b"".join(number(8, 1) for _ in range(4)) + number(20, 7)
    nodes = [node("Conv", ["x", "k"], ["c"], pads), node("Relu", ["c"], ["y"])]
    shape = (1, channels, 8, 8)
    return model(graph(nodes, [tensor("k", kernel)], [value("x", shape)], [value("y", shape)]))


def write_dense(path: Path, width: int = 256, layers: int = 2, *, seed: int = 0, beside: bool = False) -> Path:
    """The model file; ``beside``: its weights in a second one, called as it with ``.data``."""
    location = f"{path.name}.data" if beside else None
    whole, data = dense(width, layers, seed=seed, location=location)
    path.write_bytes(whole)
    if location is not None:
        (path.parent / location).write_bytes(data)
    return path
