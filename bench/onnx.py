"""The Python half of onnx.ts: five workers make a session of one ONNX model in every way; what each then takes of the memory.

Usage: onnx.py <bytes>, of the server that TENSORD_URL names, with the tests' onnx_models on the path. Prints one JSON object: for
each way the bytes of the weights, and of the workers beyond what the same processes took before: private ones, the largest of
a worker that came after the first; proportional ones, pages that they share counted once, the sum of all; seconds to the last
one's session and to its first answer; and how many answers there were.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx_models
import onnxruntime
import tensord
import tensord.onnx

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
    return hashlib.sha256(session.run(None, {"x": x})[0].tobytes()).hexdigest()


def work(way, path, small):
    """A worker: says that it is there, makes the session when it is told to, and stays until it is told to go."""
    # What ONNX Runtime and the client take at first use is no weight's.
    used_by(stock(small))
    used_by(tensord.onnx.session(small, one_thread))
    print(json.dumps("there"), flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    session = WAYS[way](path)
    made = time.monotonic()
    answer = used_by(session)
    print(json.dumps({"answer": answer, "made": made - begun, "answered": time.monotonic() - begun}), flush=True)
    sys.stdin.readline()


def memory_of(pid):
    """Private and proportional bytes of a process: proc(5), smaps_rollup."""
    rows = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        rows[name] = int(value) * 1024
    # Of what is a file's only those pages are private that were written to.
    return {"private": rows["Anonymous:"], "proportional": rows["Pss:"]}


def measure(way, path, small):
    command = [sys.executable, __file__, "worker", way, path, small]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]

    def hear(worker):
        return json.loads(worker.stdout.readline())

    def tell(worker):
        worker.stdin.write("\n")
        worker.stdin.flush()

    def taken():
        return [memory_of(worker.pid) for worker in workers]

    for worker in workers:
        hear(worker)
    before = taken()
    used = []
    for worker in workers:
        tell(worker)
        # In turns: the first packs, the last finds what is there.
        used.append(hear(worker))
    after = taken()
    for worker in workers:
        tell(worker)
        worker.wait()
    more = [
        {what: bytes_after[what] - bytes_before[what] for what in bytes_after}
        for bytes_before, bytes_after in zip(before, after, strict=True)
    ]
    return {
        "private": max(each["private"] for each in more[1:]),
        "proportional": sum(each["proportional"] for each in more),
        "first_seconds": used[0]["answered"],
        "last_made_seconds": used[-1]["made"],
        "last_seconds": used[-1]["answered"],
        "answers": sorted({each["answer"] for each in used}),
    }


def main():
    count = int(sys.argv[1]) // 4 // WIDTH // WIDTH - 3
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = str(onnx_models.write_dense(folder / "model.onnx", WIDTH, count))
        onnx_models.write_dense(folder / "beside.onnx", WIDTH, count, beside=True)
        small = str(onnx_models.write_dense(folder / "small.onnx", 16, 1))
        pack(path)
        ways = {way: measure(way, path, small) for way in WAYS}
    with tensord.connect() as client:
        regions = sum(region.storage.byte_size for region in client.list(name="model.packed"))
    print(json.dumps({"ways": ways, "regions": regions}))


if sys.argv[1] == "worker":
    work(*sys.argv[2:])
else:
    main()
