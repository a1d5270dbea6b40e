"""Sessions of ONNX Runtime in processes of their own: what each keeps for itself, who packs, and who dies meanwhile."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import onnx_models
import pytest
from harness import Child, Server

import tensord
import tensord.onnx

pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

WIDTH, LAYERS = 768, 2
# All but the biases: two layers, the one behind them, and the two inside.
WEIGHTS = (LAYERS + 3) * WIDTH * WIDTH * 4

_SESSIONS = """
import pathlib
import onnxruntime as ort
import tensord.onnx
from tensord.onnx import packed
def one_thread(options):
    options.intra_op_num_threads = 1
def stock(path):
    options = ort.SessionOptions()
    one_thread(options)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
def shared(path):
    return tensord.onnx.session(path, one_thread)
def answer(session):
    width = session.get_inputs()[0].shape[1]
    x = np.linspace(-1, 1, 2 * width, dtype=np.float32).reshape(2, width)
    return session.run(None, {"x": x})[0].tobytes().hex()[:64]
def private():
    rows = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    (size,) = [int(row.split()[1]) for row in rows if row.startswith("Anonymous:")]
    return size * 1024
real = packed._pack
def told(*arguments):
    with open(os.environ["PACKS"], "a") as file:
        file.write("packed\\n")
    real(*arguments)
packed._pack = told
"""


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each time that somebody packs."""
    path = tmp_path / "packs"
    path.touch()
    monkeypatch.setenv("PACKS", str(path))
    return path


def test_of_several_programs_one_packs_another_if_that_is_killed_and_none_keeps_weights_of_its_own(
    server: Server, client: tensord.Client, tmp_path: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(onnx_models.write_dense(tmp_path / "m.onnx", WIDTH, LAYERS))
    small = str(onnx_models.write_dense(tmp_path / "small.onnx", 16, 1))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    script = f"""{_SESSIONS}
# What ONNX Runtime and the client themselves take at first use is no weight's.
answer(stock({small!r})), answer(shared({small!r}))
say("there")
def stopped(*arguments):
    told(*arguments)
    say("packed, and not made")
    hear()
if hear() == "stop":
    packed._pack = stopped
for make in (shared, stock):
    before = private()
    session = make({path!r})
    say([answer(session), private() - before])
    hear()
"""
    with Child(script) as first, Child(script) as second, Child(script) as third:
        assert [child.hear() for child in (first, second, third)] == ["there"] * 3
        packs.write_text("")
        first.say("stop")
        assert first.hear() == "packed, and not made"
        for child in (second, third):
            child.say("go on")
        first.kill()
        answers = []
        for child in (second, third):
            answered, private = child.hear()
            answers.append(answered)
            assert private < 0.15 * WEIGHTS
        assert packs.read_text() == "packed\n" * 2
        # ONNX Runtime's own note of its sessions apart.
        assert [name for name in os.listdir(temporary) if name != ".ses"] == []
        (region,) = client.list(name="m.packed")
        assert client.get_by_id(region.id).in_use
        second.say("go on")
        answered, private = second.hear()
        assert [answered] * 2 == answers
        assert private > WEIGHTS / 2
        for child in (second, third):
            child.say("end")
        third.hear()
        third.say("end")
        second.finish()
        third.finish()
    assert not client.get_by_id(region.id).in_use


def test_a_session_outlives_the_server_and_the_next_one_finds_what_was_packed(
    tmp_path: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(onnx_models.write_dense(tmp_path / "m.onnx"))
    script = f"""{_SESSIONS}
session = shared({path!r})
while True:
    say(answer(session))
    if hear() == "end":
        break
"""
    server = Server()
    server.start()
    try:
        for key, value in server.environ.items():
            monkeypatch.setenv(key, value)
        with Child(script) as first:
            expected = first.hear()
            server.signal(signal.SIGKILL)
            first.say("again")
            assert first.hear() == expected
            server.start()
            with server.connect() as client:
                (region,) = client.list()
                assert client.get_by_id(region.id).in_use
                late = tensord.onnx.session(path, client=client)
                assert late._tensord_region.id == region.id
                first.say("end")
                first.finish()
                assert client.get_by_id(region.id).in_use
                del late
                gc.collect()
                assert packs.read_text() == "packed\n"
                assert not client.get_by_id(region.id).in_use
                client.delete(region)
    finally:
        server.stop()


def test_the_package_is_imported_without_onnxruntime(server: Server) -> None:
    script = """
import tensord.onnx
say("onnxruntime" in sys.modules)
sys.modules["onnxruntime"] = None
try:
    tensord.onnx.session("m.onnx")
except tensord.FeatureUnavailable as error:
    say(str(error))
"""
    with Child(script) as child:
        assert child.hear() is False
        assert "pip install onnxruntime" in child.hear()
        child.finish()
