"""Memory of GPUs that a program manages itself: elastic pools, whose pages come and go under addresses that stay.

``Pool`` needs no server; ``Client.pool`` gives one whose memory is shared with other processes.
"""

from ._elastic.pool import PAGE_SIZE, Pool
from ._elastic.pool_tensor import PoolTensor
from ._elastic.shared_pool import SharedPool
from ._wire.elastic_pool import FreeRun, KeptPage, Move, PoolStatistics, PoolWorker, Run

__all__ = [
    "PAGE_SIZE",
    "FreeRun",
    "KeptPage",
    "Move",
    "Pool",
    "PoolStatistics",
    "PoolTensor",
    "PoolWorker",
    "Run",
    "SharedPool",
]

# What a traceback and a pickle call them: the name that a caller can import.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
