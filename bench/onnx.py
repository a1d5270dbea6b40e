"""The Python half of onnx.ts: five workers make a session of one ONNX model in every way; what each then takes of the memory.

Usage: onnx.py <bytes>, of the server that TENSORD_URL names, with the tests' onnx_models on the path. Prints one JSON object: for
each way the bytes of the weights, and of the workers beyond what the same processes took before: private ones, the largest of
a worker that came after the first; proportional ones, pages that they share counted once, the sum of all; seconds to the last
one's session and to its first answer; and how many answers there were.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

import numpy as np
import onnx_models
import onnxruntime
import tensord
import tensord.onnx
from lib.workers import measure, serve

WORKERS = 5
WIDTH = 2048


def one_thread(options):
    options.intra_op_num_threads = 1


def stock(path, optimise=True, **entries):
    options = onnxruntime.SessionOptions()
    one_thread(options)
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


WAYS = {
    "stock": stock,
    "stock, weights in a file beside, not packed": lambda path: stock(beside(path), disable_prepacking="1"),
    "stock, packed by hand into files": lambda path: stock(packed(path), optimise=False),
    "with us": lambda path: tensord.onnx.session(path, one_thread),
}


def beside(path):
    return path.replace("model.onnx", "beside.onnx")


def packed(path):
    return path.replace("model.onnx", "packed.onnx")


def pack(path):
    """As its users do without us: once, into two files, which they keep apart by version and processor themselves."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = packed(path)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", "packed.onnx.data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def used_by(session):
    width = session.get_inputs()[0].shape[1]
    x = np.linspace(-1, 1, 2 * width, dtype=np.float32).reshape(2, width)
    return {"answer": hashlib.sha256(session.run(None, {"x": x})[0].tobytes()).hexdigest()}


def work(way, path, small):
    # What ONNX Runtime and the client take at first use is no weight's.
    used_by(stock(small))
    used_by(tensord.onnx.session(small, one_thread))
    serve(lambda: WAYS[way](path), used_by)


def sum_up(found):
    return {
        "private": max(each["private"] for each in found[1:]),
        "proportional": sum(each["proportional"] for each in found),
        "first_seconds": found[0]["seconds"],
        "last_made_seconds": found[-1]["made_seconds"],
        "last_seconds": found[-1]["seconds"],
        "answers": sorted({each["answer"] for each in found}),
    }


def main():
    count = int(sys.argv[1]) // 4 // WIDTH // WIDTH - 3
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = str(onnx_models.write_dense(folder / "model.onnx", WIDTH, count))
        onnx_models.write_dense(folder / "beside.onnx", WIDTH, count, beside=True)
        small = str(onnx_models.write_dense(folder / "small.onnx", 16, 1))
        pack(path)
        command = [sys.executable, __file__, "worker"]
        ways = {way: sum_up(measure([*command, way, path, small], WORKERS)) for way in WAYS}
    with tensord.connect() as client:
        regions = sum(region.storage.byte_size for region in client.list(name="model.packed"))
    print(json.dumps({"ways": ways, "regions": regions}))


if sys.argv[1] == "worker":
    work(*sys.argv[2:])
else:
    main()
