"""A stock reader: multiprocessing.shared_memory and nothing of ours. Before Python 3.13 it cannot be told not to track.

Prints what it read. At its exit the resource tracker unlinks the name, although this process never made it.
"""

import hashlib
import json
import sys
from multiprocessing.shared_memory import SharedMemory

name, offset, value = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
memory = SharedMemory(name=name)
found = {"size": memory.size, "sha256": hashlib.sha256(memory.buf).hexdigest()}
if value >= 0:
    memory.buf[offset] = value
memory.close()
print(json.dumps(found))
