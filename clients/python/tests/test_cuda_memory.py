"""Memory of a device, mapped from a descriptor: on a stand-in for the driver, which shows how it is called and what is
undone, and nothing of what a GPU does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_stand_in import HAS_BINDINGS, IMPORTED, LACKS_STAND_IN, StandIn, calls, stand_in
from forked import Forked
from harness import DEADLINE_SECONDS, Child

pytestmark = pytest.mark.skipif(LACKS_STAND_IN != "", reason=LACKS_STAND_IN or "there is one")

needs_bindings = pytest.mark.skipif(not HAS_BINDINGS, reason="needs cuda-bindings: pip install cuda-bindings==13.5.0")
BACKENDS = ("ctypes", pytest.param("bindings", marks=needs_bindings))
PRELUDE = """
import gc, threading, weakref
from cuda_memory import *
from cuda_stand_in import calls, order, was_ordered
array = np.arange(32, dtype=np.float32).reshape(4, 8)
def raised(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"{call} raised no {kind}")
"""


@pytest.fixture
def cuda() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


def run(cuda: StandIn, script: str, *, imported: tuple[str, ...] = (), **environ: str) -> str:
    """What a process says that does all of ``script``, which asserts. It has ``imported`` modules from its start."""
    with tempfile.TemporaryFile() as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = Forked(
            f"from harness import *\nimport tensord\n{PRELUDE}{script}\nprint('done')",
            environ={**os.environ, **cuda.environ, **environ},
            streams=(nothing.fileno(), out.fileno(), errors.fileno()),
            imported=(*IMPORTED, *imported),
        )
        try:
            code = process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
        said, complained = (os.pread(file.fileno(), 1 << 24, 0).decode() for file in (out, errors))
    assert code == 0, said + complained
    assert said.endswith("done\n")
    return said + complained


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_region_on_a_device_is_mapped_where_it_is(cuda: StandIn, backend: str) -> None:
    run(
        cuda,
        f"""
use({backend!r})
memory = Memory()
assert not memory.is_leased
attachment = memory.attach(writable=True)
assert (memory.is_leased, memory.has_writer) == (True, True)
tensor = tensor_of(attachment)
assert (tensor.device, tensor.device_uuid, tensor.writable) == ("cuda:0", UUIDS[0], True)
tensor.copy_from_host(array)
# The bytes are where every other process finds them.
assert memory.read(array.nbytes) == array.tobytes()
memory.write(array + 1)
assert (tensor.copy_to_host() == array + 1).all()
at = tensor.address
second = memory.attach()
assert (tensor_of(second).copy_to_host() == array + 1).all()
# A seal changes it in place.
attachment.remap(Access.PRIVATE)
assert (memory.is_leased, memory.has_writer, tensor.writable, tensor.address) == (True, False, False, at)
assert "mapped for reading" in raised(tensord.ValidationFailed, lambda: tensor.copy_from_host(array))
assert "CUDA_ERROR" in raised(tensord.DriverFailed, lambda: attachment.memory.copy_in(0, array.ctypes.data, 4))
attachment.remap(Access.WRITE)
assert memory.has_writer
tensor.copy_from_host(array)
del tensor
attachment.close(), second.close()
assert not memory.is_leased
assert [each for each in what_is_there() if "memory" not in each] == [], what_is_there()
os.close(memory.fd)
assert what_is_there() == []
""",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_that_fails_at_attach_or_detach_leaves_nothing_and_says_which(cuda: StandIn, backend: str) -> None:
    """Each call of an attach, of a change of access and of a detach fails once: with the driver's name and text."""
    said = run(
        cuda,
        f"""
use({backend!r})
memory = Memory()
before = what_is_there(), descriptors()
def everything():
    attachment = memory.attach(writable=True)
    try:
        attachment.remap(Access.PRIVATE)
    finally:
        attachment.close()
order(FOLDER, "none 1 2")
everything()
assert (what_is_there(), descriptors()) == before
order(FOLDER, "none 1 2")
start = len(calls(FOLDER))
everything()
made = [name for name in calls(FOLDER)[start:] if name not in ("cuGetErrorName", "cuGetErrorString")]
for k in range(1, len(made) + 1):
    order(FOLDER, f"* {{k}} 999")
    error = raised(tensord.DriverFailed, everything)
    assert "CUDA_ERROR_UNKNOWN (999): unknown error" in error, (k, error)
    order(FOLDER, "none 1 2")
    assert not memory.is_leased, (k, made[k - 1])
    assert (what_is_there(), descriptors()) == before, (k, made[k - 1], what_is_there(), before)
    assert was_ordered(FOLDER, made[k - 1])
print(*made)
everything()
""",
    )
    for call in ("cuMemImportFromShareableHandle", "cuMemAddressReserve", "cuMemMap", "cuMemSetAccess", "cuMemUnmap"):
        assert call in said
    assert len(said.split()) > 20


def test_what_the_driver_refuses_to_take_back_stays_leased_until_an_attach_tries_again(cuda: StandIn) -> None:
    run(
        cuda,
        """
memory = Memory()
attachment = memory.attach()
order(FOLDER, "cuMemUnmap 1 999", "cuMemUnmap 2 999")
error = raised(tensord.DriverFailed, attachment.close)
assert "stays, leased" in error and "cuMemUnmap failed with CUDA_ERROR_UNKNOWN" in error, error
# It is mapped still: nobody may free it.
assert memory.is_leased and any("context" in each for each in what_is_there())
attachment.close()
order(FOLDER, "none 1 2")
memory.attach().close()
assert not memory.is_leased
assert not any("context" in each for each in what_is_there())
""",
    )


def test_a_result_that_the_driver_has_no_name_for_is_told_by_its_number(cuda: StandIn) -> None:
    run(
        cuda,
        f"has_bindings = {HAS_BINDINGS}"
        """
for backend in ("ctypes", "bindings")[: 1 + has_bindings]:
    use(backend)
    devices._driver = None
    memory = Memory()
    order(FOLDER, "cuMemMap 1 54321")
    try:
        memory.attach()
    except tensord.DriverFailed as error:
        assert error.fields == {"call": "cuMemMap", "result": 54321, "result_name": None}, error.fields
        assert "54321" in str(error) and REGION in str(error)
    else:
        raise AssertionError
""",
    )


def test_a_process_without_descriptors_is_told_so(cuda: StandIn) -> None:
    run(
        cuda,
        """
import resource
memory = Memory()
memory.attach().close()
handed = memory.hand_out(memory.place, False)
memory.hand_out = lambda place, writable: handed
order(FOLDER, "cuMemImportFromShareableHandle 1 304")
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
error = raised(tensord.OutOfDescriptors, memory.attach)
assert "cuMemImportFromShareableHandle" in error or "no file descriptor left" in error, error
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
assert not memory.is_leased
""",
    )


def test_what_libraries_made_keeps_the_mapping_and_methods_raise_after_a_close(cuda: StandIn) -> None:
    run(
        cuda,
        """
memory = Memory()
memory.write(array)
attachment = memory.attach()
tensor, idle = tensor_of(attachment), tensor_of(attachment)
shown = tensor.__cuda_array_interface__
assert shown["data"] == (tensor.address, True) and shown["typestr"] == "<f4" and shown["shape"] == (4, 8)
capsule = idle.__dlpack__(max_version=(1, 0))
assert idle.__dlpack_device__() == (2, 0)
attachment.close()
for use in (
    tensor.copy_to_host,
    tensor.numpy,
    tensor.torch,
    tensor.ref,
    lambda: tensor.__cuda_array_interface__,
    tensor.__dlpack__,
    tensor.__dlpack_device__,
    lambda: np.asarray(tensor),
):
    raised(tensord.Closed, use)
# Whoever read the interface keeps the tensor, and the capsule keeps itself.
assert memory.is_leased
del tensor, use
gc.collect()
assert memory.is_leased
del capsule
gc.collect()
assert not memory.is_leased and idle is not None
""",
    )


def test_the_processor_is_kept_away_from_a_devices_memory_in_words(cuda: StandIn) -> None:
    run(
        cuda,
        """
memory = Memory()
attachment = memory.attach()
tensor = tensor_of(attachment)
for use in tensor.numpy, tensor.bytes, lambda: np.asarray(tensor):
    error = raised(tensord.FeatureUnavailable, use)
    assert "cuda:0" in error and "copy_to_host" in error, error
error = raised(tensord.FeatureUnavailable, lambda: tensor_of(attachment, "BF16").__cuda_array_interface__)
assert "DLPack" in error
assert raised(BufferError, lambda: tensor.__dlpack__(dl_device=(1, 0)))
assert raised(BufferError, lambda: tensor.__dlpack__(copy=True))
empty = tensor_of(attachment, "F32", (0, 3))
assert empty.__cuda_array_interface__["data"] == (0, True)
assert empty.copy_to_host().shape == (0, 3)
ref = tensor.ref()
assert (ref.storage, ref.path, ref.device_uuid) == ("cuda_vmm", None, UUIDS[0])
assert tensord.TensorReference.from_json(ref.to_json()) == ref
del tensor, empty, use
attachment.close()
""",
    )


def test_a_forked_child_is_refused_in_words_and_holds_no_lease(cuda: StandIn) -> None:
    run(
        cuda,
        """
memory = Memory()
attachment = memory.attach()
tensor = tensor_of(attachment)
def in_child(do):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            do()
            code = 0
        except BaseException as error:
            import traceback
            traceback.print_exc()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
def use_it():
    before = len(calls(FOLDER))
    for use in tensor.copy_to_host, lambda: tensor.__cuda_array_interface__, tensor.__dlpack__:
        error = raised(tensord.Closed, use)
        assert "forked child" in error and "spawn" in error, error
    error = raised(tensord.FeatureUnavailable, memory.attach)
    assert "forked child" in error and "spawn" in error, error
    attachment.close()
    gc.collect()
    # Not one call was made.
    assert len(calls(FOLDER)) == before
def outlive():
    # Without a word to the parent's driver or lease.
    import time
    os.read(gate[0], 1)
in_child(use_it)
assert memory.is_leased and (tensor.copy_to_host() == 0).all()
gate, born = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.close(gate[1])
    os.write(born[1], b".")
    outlive()
    os._exit(0)
os.read(born[0], 1)
del tensor
attachment.close()
# The child lives, and does not keep what it cannot use.
assert not memory.is_leased
os.close(gate[1])
os.waitpid(pid, 0)
""",
    )


def test_a_driver_that_another_library_used_before_a_fork_is_named_as_the_cause(cuda: StandIn) -> None:
    run(
        cuda,
        """
library = ctypes.CDLL("libcuda.so.1")
assert library.cuInit(0) == 0
pid = os.fork()
if pid == 0:
    error = raised(tensord.DriverFailed, devices.usable_driver)
    os._exit(0 if "CUDA_ERROR_NOT_INITIALIZED" in error and "forked" in error else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
    )


def test_a_device_is_found_by_its_uuid_and_one_that_is_hidden_is_named(cuda: StandIn) -> None:
    run(
        cuda,
        """
memory = Memory(ordinal=0)
memory.uuid = UUIDS[1]
attachment = memory.attach()
# Of two cards this process sees the second, as its first.
assert (attachment.device.ordinal, attachment.device.uuid) == (0, UUIDS[1])
attachment.close()
assert devices.choose_device("cuda:0") == UUIDS[1]
memory.uuid = UUIDS[0]
before = descriptors()
error = raised(tensord.FeatureUnavailable, memory.attach)
assert UUIDS[0] in error and "CUDA_VISIBLE_DEVICES is '1'" in error, error
assert descriptors() == before and not memory.is_leased
assert "sees 1 devices" in raised(tensord.ValidationFailed, lambda: devices.choose_device("cuda:1"))
assert "GPU-" in raised(tensord.ValidationFailed, lambda: devices.choose_device("gpu0"))
""",
        CUDA_VISIBLE_DEVICES="1",
    )


def test_without_the_driver_or_a_device_the_error_says_what_to_do(cuda: StandIn, tmp_path: Path) -> None:
    script = """
from cuda_stand_in import UUIDS
from tensord._cuda import devices
from tensord._cuda.by_ctypes import CtypesDriver
devices._load.__globals__["BindingsDriver"] = lambda: (_ for _ in ()).throw(ImportError)
import tensord
try:
    devices.usable_driver()
except tensord.TensordError as error:
    print(type(error).__name__, error)
"""

    def say(**environ: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **cuda.environ, **environ},
            # What lies in the working directory is nobody's driver.
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    (tmp_path / "libcuda.so.1").symlink_to(f"{cuda.environ['LD_LIBRARY_PATH']}/libcuda.so.1")
    said = say(LD_LIBRARY_PATH="")
    assert said.startswith("FeatureUnavailable"), said
    assert "libcuda.so.1 cannot be loaded" in said
    assert "container toolkit" in said
    said = say(CUDA_VISIBLE_DEVICES="")
    assert said.startswith("DriverFailed"), said
    assert "cuInit failed with CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected" in said
    assert "CUDA_VISIBLE_DEVICES" in said


def test_a_worker_that_is_killed_or_exits_in_any_order_leaves_nothing(cuda: StandIn) -> None:
    script = f"""{PRELUDE}
memory = Memory()
attachment = memory.attach()
tensor = tensor_of(attachment)
shown = tensor.__cuda_array_interface__
cycle = [tensor]; cycle.append(cycle)
say(len(what_is_there()))
hear()
"""
    with (
        Child(script, environ=cuda.environ, imported=IMPORTED) as killed,
        Child(script, environ=cuda.environ, imported=IMPORTED) as ending,
    ):
        assert killed.hear() > 0
        assert ending.hear() > 0
        killed.kill()
        # With everything open: no finalizer calls a driver that is being torn down.
        ending.finish()
        assert ending.errors() == ""
    assert cuda.in_use() == []


def test_calls_are_made_in_the_primary_context_and_leave_the_threads_own(cuda: StandIn) -> None:
    run(
        cuda,
        """
library = ctypes.CDLL("libcuda.so.1")
memory = Memory()
context, now = ctypes.c_void_p(), ctypes.c_void_p()
assert library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 1) == 0
assert library.cuCtxPushCurrent_v2(context) == 0
attachment = memory.attach()
tensor_of(attachment).copy_to_host()
thread = threading.Thread(target=attachment.close)
thread.start(), thread.join()
assert library.cuCtxGetCurrent(ctypes.byref(now)) == 0 and now.value == context.value
assert not memory.is_leased
made = calls(FOLDER)
# It waits for the device before it unmaps.
assert made.index("cuCtxSynchronize") < made.index("cuMemUnmap")
assert library.cuDevicePrimaryCtxRelease_v2(1) == 0
""",
    )
    assert "cuMemAlloc" not in calls(cuda.folder)
