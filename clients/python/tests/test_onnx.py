"""Sessions of ONNX Runtime over a region: the same answers, what names a version, what is refused, and when it ends."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from harness import SHM_DIRECTORY, Server, rounds_of

import tensord
import tensord.onnx
from tensord.onnx import packed, relocate
from tensord.onnx import session as made_by
from tensord.onnx.key import identify
from tensord.onnx.protobuf import to_field

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
session_module: Any = sys.modules["tensord.onnx.session"]

X = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)


def one_thread(options: Any) -> None:
    options.intra_op_num_threads = 1


def make(path: Path, **options: Any) -> Any:
    return made_by(path, options.pop("configure", one_thread), **options)


def stock(path: Path) -> Any:
    options = ort.SessionOptions()
    one_thread(options)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answer(session: Any, x: Any = X) -> Any:
    return session.run(None, {"x": x})[0]


def mapped_bytes(client: tensord.Client, session: Any) -> int:
    """Of the region's file, by ONNX Runtime and not by this package, which maps it whole."""
    (region,) = client.list()
    path, size = region.storage.path, region.storage.byte_size
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    sizes = [int(end, 16) - int(begin, 16) for begin, _, end in (row[0].partition("-") for row in maps)]
    return sum(each for each in sizes if each < size)


@pytest.mark.parametrize("beside", [False, True], ids=["weights inside", "weights beside"])
def test_a_session_answers_as_a_stock_one_with_its_weights_in_a_region(
    client: tensord.Client, tmp_path: Path, beside: bool
) -> None:
    path = onnx_models.write_dense(tmp_path / "a model.onnx", beside=beside)
    session = make(path)
    assert isinstance(session, ort.InferenceSession)
    assert np.array_equal(answer(session), answer(stock(path)))
    # Of each layer what is packed and the rest; of graphs inside as well. Raw weights of what is packed are let go of.
    assert mapped_bytes(client, session) >= 5 * X.shape[1] ** 2 * 4
    (region,) = client.list()
    assert (region.name, region.labels) == ("a-model.packed", {"tensord.file": str(path)})
    assert client.get_by_id(region.id).in_use
    again = make(path)
    assert np.array_equal(answer(again), answer(session))
    assert len(list(client.list())) == 1
    del session
    gc.collect()
    assert client.get_by_id(region.id).in_use
    del again
    gc.collect()
    assert not client.get_by_id(region.id).in_use


def test_a_convolution_and_a_model_without_weights_are_sessions_too(client: tensord.Client, tmp_path: Path) -> None:
    path = tmp_path / "c.onnx"
    path.write_bytes(onnx_models.convolution())
    x = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 8, 8)
    assert np.array_equal(answer(make(path), x), answer(stock(path), x))
    value = onnx_models.value
    graph = onnx_models.graph(
        [onnx_models.node("Relu", ["x"], ["y"])], [], [value("x", ("rows", 256))], [value("y", ("rows", 256))]
    )
    path.write_bytes(onnx_models.model(graph))
    assert np.array_equal(answer(make(path)), np.maximum(X, 0))
    assert [region.name for region in client.list()] == ["c.packed", "c.packed"]


def test_a_weight_inside_whose_name_is_taken_stays_where_it_is(tmp_path: Path) -> None:
    data = np.arange(64, dtype=np.uint8)

    def inner(offset: int) -> bytes:
        weight = onnx_models.outside("w", (4,), "d", offset)
        return onnx_models.graph([], [weight], [], [onnx_models.value("o", ())])

    branches = [onnx_models.branch(f"{name}_branch", inner(at)) for name, at in (("then", 0), ("else", 16))]
    whole = onnx_models.model(onnx_models.graph([onnx_models.node("If", ["c"], ["y"], *branches)], [], [], []))
    moved = relocate.relocate(whole, data, "elsewhere", 4096)
    assert b"elsewhere" not in moved
    assert data[:16].tobytes() in moved
    assert data[16:32].tobytes() in moved
    one = onnx_models.branch("then_branch", inner(16))
    whole = onnx_models.model(onnx_models.graph([onnx_models.node("If", ["c"], ["y"], one)], [], [], []))
    moved = relocate.relocate(whole, data, "elsewhere", 4096)
    assert moved.count(b"elsewhere") == 1
    assert b"4112" in moved
    assert data[16:32].tobytes() not in moved
    with pytest.raises(Exception, match="weights of 16 bytes at '16', in a file of 20"):
        relocate.relocate(whole, data[:20], "elsewhere", 4096)


def test_what_decides_what_is_packed_names_the_version_and_what_does_not_does_not(
    client: tensord.Client, tmp_path: Path
) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx", width=64, layers=1, beside=True)

    def count() -> int:
        return len({region.version for region in client.list(name="m.packed")})

    def without_optimising(options: Any) -> None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

    def with_rows(options: Any) -> None:
        options.add_free_dimension_override_by_name("rows", 2)

    def with_entry(options: Any) -> None:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")

    def with_threads_and_logs(options: Any) -> None:
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    x = X[:, :64]
    expected = answer(stock(path), x)
    for number, options in enumerate(
        [
            {},
            {"configure": without_optimising},
            {"configure": with_rows},
            {"configure": with_entry},
            {"fingerprint": {"library": 2}},
        ]
    ):
        assert np.allclose(answer(make(path, **options), x), expected, rtol=1e-4, atol=1e-6)
        assert count() == number + 1
    make(path, configure=with_threads_and_logs)
    make(path, fingerprint=None)
    assert count() == 5
    os.utime(path, ns=(1, 1))
    make(path)
    assert count() == 6
    os.utime(tmp_path / "m.onnx.data", ns=(1, 1))
    make(path)
    assert count() == 7


def test_options_that_cannot_be_shared_are_refused_with_what_to_do(client: tensord.Client, tmp_path: Path) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx", width=64, layers=1)

    def refused(configure: Callable[[Any], object], match: str) -> None:
        with pytest.raises(tensord.ValidationFailed, match=match):
            make(path, configure=configure)

    weight = ort.OrtValue.ortvalue_from_numpy(np.zeros((64, 64), np.float32))
    refused(lambda options: options.add_initializer("w0", weight), "in no file that others could map")
    refused(lambda options: options.add_provider("CPUExecutionProvider", {}), "packed for the CPU")
    refused(lambda options: setattr(options, "optimized_model_filepath", "/x"), "tensord says")
    refused(lambda options: options.add_session_config_entry("session.disable_prepacking", "1"), "disable_prepacking")
    with pytest.raises(tensord.ValidationFailed, match=r"fingerprint is .*, want text, numbers"):
        make(path, fingerprint={"x": object()})
    with pytest.raises(ZeroDivisionError):
        make(path, configure=lambda _: 1 // 0)
    assert list(client.list()) == []


def _corrupting(times: int) -> Callable[..., None]:
    """``Packed.complete``, which spoils what was packed, so many times: as by another kernel."""
    complete, left = packed.Packed.complete, [times]

    def spoil(self: Any, region: tensord.Region) -> None:
        complete(self, region)
        if left[0] > 0:
            left[0] -= 1
            # The first weight's packed copy, behind its raw one.
            region["data"].bytes()[256 * 256 * 4 :][:64] ^= 1

    return spoil


def test_what_the_kernels_refuse_is_packed_anew_once_and_then_loaded_without_tensord(
    client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx")
    expected = answer(stock(path))
    monkeypatch.setattr(packed.Packed, "complete", _corrupting(1))
    with caplog.at_level(logging.WARNING, "tensord"):
        first = make(path)
        (message,) = caplog.messages
        assert "packed anew" in message
        assert "do not match the buffers generated by the current kernel" in message
        assert np.array_equal(answer(first), expected)
        assert mapped_bytes(client, first) > 0
        caplog.clear()
        assert np.array_equal(answer(make(path)), expected)
        assert caplog.messages == []
        monkeypatch.setattr(packed.Packed, "complete", _corrupting(9))
        plain = make(path, fingerprint="another")
    assert ["packed anew" in message for message in caplog.messages] == [True, False]
    assert "loaded without tensord" in caplog.messages[1]
    assert np.array_equal(answer(plain), expected)
    gc.collect()
    (spoilt,) = [region for region in client.list() if region.version != first._tensord_region.version]
    assert not client.get_by_id(spoilt.id).in_use


def test_what_is_no_packed_model_is_replaced_and_what_has_no_path_is_not_used(
    client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx", width=64, layers=1)
    x = X[:, :64]
    expected = answer(stock(path), x)
    make(path)
    (region,) = client.list()
    for tensors in ({"other": np.zeros(4)}, {"data": np.zeros(4), "model": np.frombuffer(b"\x08garbage", np.uint8)}):
        with client.create("m.packed", tensors, version=region.version, ttl=600, if_exists="replace") as forged:
            forged.seal()
        assert np.array_equal(answer(make(path), x), expected)
        (region,) = client.list()
        assert set(client.attach("m.packed").tensors) == {"data", "model"}
    caplog.clear()
    monkeypatch.setattr(tensord.Region, "attached_by", "descriptor")
    with caplog.at_level(logging.WARNING, "tensord"):
        assert np.array_equal(answer(make(path), x), expected)
    (message,) = caplog.messages
    assert "no path that this process can open" in message


def test_a_region_that_goes_before_it_is_opened_is_asked_for_again(
    client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx", width=64, layers=1)
    real, deleted = session_module.session_of, []

    def late(region: tensord.Region, options: Any) -> Any:
        if not deleted:
            deleted.append(client.delete(region))
        return real(region, options)

    monkeypatch.setattr(session_module, "session_of", late)
    with caplog.at_level(logging.WARNING, "tensord"):
        session = make(path)
    assert caplog.messages == []
    assert client.get_by_id(session._tensord_region.id).in_use


def test_a_session_keeps_its_region_from_eviction_until_it_is_gone(client: tensord.Client, tmp_path: Path) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx")
    session = make(path, evictable=True)
    assert [kept.reason for kept in client.evict(1 << 40).kept] == ["leased"]
    expected = answer(session)
    (region,) = client.list()
    client.delete(region)
    # It drains: its bytes are there for who uses it.
    assert np.array_equal(answer(session), expected)
    del session
    gc.collect()
    make(path, evictable=True)
    gc.collect()
    # Nobody has it any more; what was asked for a moment ago stays for one.
    assert [kept.reason for kept in client.evict(1 << 40).kept] == ["handed-out"]


def test_a_model_that_changes_while_it_is_packed_is_refused_and_leaves_nothing(
    client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = onnx_models.write_dense(tmp_path / "m.onnx", width=64, layers=1)

    class Changing(packed.Packed):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            onnx_models.write_dense(path, width=64, layers=1, seed=7)

    with monkeypatch.context() as patched:
        patched.setattr(session_module, "Packed", Changing)
        with pytest.raises(tensord.InvalidModelFile, match="it changed while it was packed"):
            make(path)
    assert list(client.list()) == []
    assert np.array_equal(answer(make(path), X[:, :64]), answer(stock(path), X[:, :64]))


def _deep(levels: int) -> bytes:
    inner = onnx_models.graph([], [onnx_models.outside("w", (1,), "d")], [], [])
    for _ in range(levels):
        inner = onnx_models.graph([onnx_models.node("If", ["c"], ["y"], onnx_models.branch("b", inner))], [], [], [])
    return onnx_models.model(inner)


def _with_weight(location: str) -> bytes:
    weight = onnx_models.outside("w", (256, 256), location)
    shape = ("rows", 256)
    ends = [[onnx_models.value(name, shape)] for name in ("x", "y")]
    return onnx_models.model(onnx_models.graph([onnx_models.node("MatMul", ["x", "w"], ["y"])], [weight], *ends))


# What each tries, and how it is refused. Large ones are looked at field by field before ONNX Runtime is asked.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing in it": (b"", "it is empty"),
    "text": (b"no model at all, but a text of some length", "Protobuf parsing failed"),
    "a pickle": (pickle.dumps([1, 2, 3]), "Protobuf parsing failed"),
    "a field that ends behind the file": (b"\x3a\xff\xff\xff\xff\x0f" + bytes(70_000), "ends behind its message"),
    "a number without an end": (b"\x08" + b"\xff" * 70_000, "a number that does not end"),
    "a field without a number": (b"\x00\x01" * 40_000, "that has no number"),
    "a field of a type that there is not": (b"\x0f" * 70_000, "a field of wire type 7"),
    "a truncated tail": (onnx_models.dense(256, 1)[0][:-20], "ends behind its message"),
    "graphs inside one another without an end": (_deep(200), "graphs inside one another"),
    "weights in a file that is not there": (_with_weight("none.data"), "No such file"),
    "weights by an absolute path": (_with_weight("/etc/passwd"), "Absolute path"),
    "weights outside of the folder": (_with_weight("../outside.data"), "escapes"),
    "weights in a path that is none": (_with_weight("a\0b"), "null byte"),
    "weights in a file that is too short": (_with_weight("short.data"), "out of bounds"),
    "an operator that nobody knows": (
        onnx_models.model(onnx_models.graph([onnx_models.node("Nonsense", [], ["y"])], [], [], [])),
        "Nonsense",
    ),
}


def _open_files() -> set[str]:
    targets = set()
    for fd in Path("/proc/self/fd").iterdir():
        # The one by which this folder is read is gone by now.
        with contextlib.suppress(FileNotFoundError):
            targets.add(os.readlink(fd))
    return {target for target in targets if target.startswith(tempfile.gettempdir())}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_model_file_is_refused_by_its_path_and_leaves_nothing(
    client: tensord.Client, tmp_path: Path, what: str
) -> None:
    content, reason = HOSTILE[what]
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "hostile.onnx"
    path.write_bytes(content)
    (tmp_path / "outside.data").write_bytes(bytes(256 * 256 * 4))
    (folder / "short.data").write_bytes(b"short")
    client.stats()
    before = _open_files()
    with pytest.raises(tensord.InvalidModelFile) as caught:
        make(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert list(client.list()) == []
    assert _open_files() <= before


def test_what_is_no_file_is_refused(client: tensord.Client, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, reason in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "no regular file"),
        (fifo, "no regular file"),
        (Path("/dev/null"), "no regular file"),
        (tmp_path / "circle", "symbolic links"),
    ):
        with pytest.raises(tensord.InvalidModelFile, match=reason):
            make(path)
    (tmp_path / "m.ort").write_bytes(b"\x18\0\0\0ORTM" + bytes(64))
    with pytest.raises(tensord.UnsupportedFormat, match=r"pass the \.onnx file"):
        make(tmp_path / "m.ort")
    with tensord.connect(session=False) as lone:
        with pytest.raises(tensord.ValidationFailed, match="connect without session=False"):
            make(onnx_models.write_dense(tmp_path / "m.onnx", width=64, layers=1), client=lone)


def test_whatever_is_in_a_model_file_it_is_looked_at_or_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("TEST_SEED", np.random.SeedSequence().entropy % (1 << 32)))  # type: ignore[operator]
    record_property("TEST_SEED", seed)
    random = np.random.default_rng(seed)
    whole = np.frombuffer(onnx_models.dense(16, 1, location="d")[0], np.uint8)
    path = tmp_path / "m.onnx"
    (tmp_path / "d").write_bytes(bytes(8192))
    refused = 0
    for _ in range(rounds_of("python-onnx-files")):
        spoilt = whole[: random.integers(1, len(whole) + 1)].copy()
        places = random.integers(0, len(spoilt), random.integers(0, 8))
        spoilt[places] = random.integers(0, 256, len(places))
        path.write_bytes(spoilt.tobytes())
        try:
            identify(str(path))
        except tensord.InvalidModelFile:
            refused += 1
    assert refused > 0


def test_a_stub_beside_a_region_needs_no_client(server: Server, client: tensord.Client, tmp_path: Path) -> None:
    weights = np.linspace(-1, 1, 256 * 256, dtype=np.float32).reshape(256, 256)
    with client.create("weights", {"w": weights}, ttl=600) as region:
        region.seal()
        offset = region["w"].byte_offset
    with client.hold("weights") as path:
        stub = Path(path).with_name(f"tensord.{server.instance}.stub.onnx")
        assert stub.parent == SHM_DIRECTORY
        weight = onnx_models.outside("w", weights.shape, Path(path).name, offset)
        ends = [[onnx_models.value(name, ("rows", 256))] for name in ("x", "y")]
        graph = onnx_models.graph([onnx_models.node("MatMul", ["x", "w"], ["y"])], [weight], *ends)
        stub.write_bytes(onnx_models.model(graph))
        try:
            options = ort.SessionOptions()
            options.add_session_config_entry("session.disable_prepacking", "1")
            session = ort.InferenceSession(str(stub), options)
        finally:
            stub.unlink()
        assert np.allclose(answer(session), X @ weights, atol=1e-4)
        assert any(line.endswith(path) for line in Path("/proc/self/maps").read_text().splitlines())
        del session


def test_a_length_may_be_longer_than_it_must_be() -> None:
    model = onnx_models.dense(16, 1)[0]
    for more in (9, 200, 70_000):
        assert len(relocate.padded(model, len(model) + more)) == len(model) + more
    assert to_field(1, b"x") == b"\x0a\x01x"
