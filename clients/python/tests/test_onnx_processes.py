"""Sessions of ONNX Runtime in processes of their own: what each keeps for itself, who packs, and who dies meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import onnx_models
import pytest
from harness import Child, Server

import tensord

pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

WIDTH, LAYERS = 1024, 2
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


def test_of_several_programs_one_packs_and_no_other_keeps_weights_of_its_own(
    server: Server, client: tensord.Client, tmp_path: Path, packs: Path
) -> None:
    path = str(onnx_models.write_dense(tmp_path / "m.onnx", WIDTH, LAYERS))
    small = str(onnx_models.write_dense(tmp_path / "small.onnx", 16, 1))
    script = f"""{_SESSIONS}
# What ONNX Runtime and the client themselves take at first use is no weight's.
answer(stock({small!r})), answer(shared({small!r}))
say("there")
import faulthandler; faulthandler.dump_traceback_later(60)
make = {{"stock": stock, "shared": shared}}[hear()]
before = private()
session = make({path!r})
say([answer(session), private() - before])
hear()
"""
    with Child(script) as first, Child(script) as second, Child(script) as third:
        children = (first, second, third)
        assert [child.hear() for child in children] == ["there"] * 3
        packs.write_text("")
        first.say("stock")
        expected, stock = first.hear()
        second.say("shared")
        third.say("shared")
        assert stock > WEIGHTS / 2
        for child in (second, third):
            answered, private = child.hear()
            assert answered == expected
            assert private < 0.15 * WEIGHTS
        assert packs.read_text() == "packed\n"
        assert all(client.get_by_id(region.id).in_use for region in client.list(name="m.packed"))
        for child in children:
            child.say("end")
            child.finish()
    assert not any(client.get_by_id(region.id).in_use for region in client.list())


def test_a_packer_that_is_killed_is_followed_by_the_next_and_leaves_nothing(
    server: Server, client: tensord.Client, tmp_path: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(onnx_models.write_dense(tmp_path / "m.onnx"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    script = f"""{_SESSIONS}
def stopped(*arguments):
    told(*arguments)
    say("packed, and not made")
    hear()
packed._pack = stopped
say(answer(shared({path!r})))
hear()
"""
    with Child(script) as first:
        assert first.hear() == "packed, and not made"
        with Child(script) as second:
            first.kill()
            assert second.hear() == "packed, and not made"
            second.say("go on")
            answered = second.hear()
            assert len(answered) == 64
            second.say("end")
            second.finish()
    assert packs.read_text() == "packed\n" * 2
    # ONNX Runtime's own note of its sessions apart.
    assert [name for name in os.listdir(temporary) if name != ".ses"] == []
    assert [region.name for region in client.list()] == ["m.packed"]


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
                with Child(script) as second:
                    assert second.hear() == expected
                    for child in (first, second):
                        child.say("end")
                        child.finish()
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
