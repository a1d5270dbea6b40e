"""Libraries for GPUs read and write real bytes through the client: on a stand-in for the driver. What needs more of the
driver than that, torch and cupy, needs a card, and has not been seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from cuda_stand_in import LACKS_STAND_IN, StandIn, stand_in
from test_cuda_memory import run as run_script

pytestmark = pytest.mark.skipif(LACKS_STAND_IN != "", reason=LACKS_STAND_IN or "there is one")


def _is_there(module: str) -> bool:
    return all(find_spec(name) is not None for name in (module.partition(".")[0], module))


def _needs(module: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not _is_there(module), reason=f"needs {package.partition('==')[0]}: pip install {package}"
    )


#: One process imports both, which takes seconds, for those that use one.
CONSUMERS = tuple(name for name in ("numba.cuda", "cuda.core.utils") if _is_there(name.replace("numba.", "numba_")))


def run(cuda: StandIn, script: str) -> None:
    run_script(cuda, script, imported=CONSUMERS)


@pytest.fixture
def cuda() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


@_needs("numba_cuda", "numba-cuda==0.30.4")
def test_numba_reads_and_writes_the_bytes_that_are_there(cuda: StandIn) -> None:
    run(
        cuda,
        """
import warnings
warnings.simplefilter("ignore")
from numba import cuda
memory = Memory()
memory.write(array)
attachment = memory.attach(writable=True)
shown = cuda.as_cuda_array(tensor_of(attachment))
assert (shown.copy_to_host() == array).all()
shown.copy_to_device(array * 2)
assert memory.read(array.nbytes) == (array * 2).tobytes()
# It keeps what it shows.
attachment.close()
assert memory.is_leased and (shown.copy_to_host() == array * 2).all()
del shown
gc.collect()
assert not memory.is_leased
""",
    )


@_needs("cuda.core", "cuda-core==1.2.2")
def test_cuda_core_sees_the_address_dtype_and_shape_by_both_protocols(cuda: StandIn) -> None:
    run(
        cuda,
        """
from cuda.core.utils import StridedMemoryView
memory = Memory()
memory.write(array)
attachment = memory.attach()
tensor = tensor_of(attachment)
for view in (
    StridedMemoryView.from_cuda_array_interface(tensor, stream_ptr=-1),
    StridedMemoryView.from_dlpack(tensor, stream_ptr=-1),
):
    assert (view.ptr, view.shape, view.dtype) == (tensor.address, (4, 8), np.float32), view
    assert view.readonly and view.device_id == 0 and view.is_device_accessible
wide = StridedMemoryView.from_dlpack(tensor_of(attachment, "I64", (3, 2)), stream_ptr=-1)
assert (wide.shape, wide.dtype) == ((3, 2), np.int64)
del view, wide, tensor
attachment.close()
gc.collect()
assert not memory.is_leased
""",
    )


@_needs("numba_cuda", "numba-cuda==0.30.4")
def test_numba_reads_and_writes_the_pages_of_an_elastic_pool(cuda: StandIn) -> None:
    run(
        cuda,
        """
import warnings
warnings.simplefilter("ignore")
from numba import cuda
from tensord.cuda import Pool
pool = Pool(16 * MIB, 2 * MIB)
pool.map(4 * MIB)
tensor = pool.tensor(0, (4, 8), "F32")
shown = cuda.as_cuda_array(tensor)
shown.copy_to_device(array)
assert (tensor.copy_to_host() == array).all()
pool.tensor(0, (4, 8), "F32").copy_from_host(array * 2)
assert (shown.copy_to_host() == array * 2).all()
# What it made keeps the pool, though not its pages.
del pool, tensor
gc.collect()
assert (shown.copy_to_host() == array * 2).all()
del shown
gc.collect()
# numba keeps its context.
assert [each for each in what_is_there() if "memory" in each] == []
""",
    )


@_needs("cuda.core", "cuda-core==1.2.2")
def test_cuda_core_sees_a_tensor_of_an_elastic_pool_by_both_protocols(cuda: StandIn) -> None:
    run(
        cuda,
        """
from cuda.core.utils import StridedMemoryView
from tensord.cuda import Pool
with Pool(16 * MIB, 2 * MIB) as pool:
    pool.map(4 * MIB)
    tensor = pool.tensor(2 * MIB, (4, 8), "F32")
    for view in (
        StridedMemoryView.from_cuda_array_interface(tensor, stream_ptr=-1),
        StridedMemoryView.from_dlpack(tensor, stream_ptr=-1),
    ):
        assert (view.ptr, view.shape, view.dtype) == (pool.base_address + 2 * MIB, (4, 8), np.float32), view
        assert not view.readonly and view.device_id == 0 and view.is_device_accessible
""",
    )
