"""A part of engines.ts: workers make a session of ONNX Runtime of one model in every way.

Usage: onnx_session.py <bytes>, of the server that TENSORD_URL names, with the tests' onnx_models on the path. Prints JSON: the
rows of `lib/workers.py`.
"""

import hashlib
import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import onnx_models
import onnxruntime
import tensord
import tensord.onnx
from lib.workers import measure_rows, serve

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
    "tensord.onnx.session": lambda path: tensord.onnx.session(path, one_thread),
}
BESIDE = {way: "stock" if way.startswith("tensord") else None for way in WAYS}


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
    weights = os.path.getsize(path)
    serve(lambda: WAYS[way](path), lambda session: {"weights": weights, **used_by(session)})


def main():
    count = int(sys.argv[1]) // 4 // WIDTH // WIDTH - 3
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = str(onnx_models.write_dense(folder / "model.onnx", WIDTH, count))
        onnx_models.write_dense(folder / "beside.onnx", WIDTH, count, beside=True)
        small = str(onnx_models.write_dense(folder / "small.onnx", 16, 1))
        pack(path)
        command = [sys.executable, __file__, "worker"]
        with tensord.connect() as client:
            engine = f"ONNX Runtime {onnxruntime.__version__}"
            rows = list(measure_rows(client, engine, BESIDE, lambda way: [*command, way, path, small]))
    print(json.dumps(rows))


if sys.argv[1] == "worker":
    work(*sys.argv[2:])
else:
    main()
