"""Maps one tensor of F32 with numpy, prints what it holds, and doubles it. Arguments: path, byte offset, elements."""

import json
import sys

import numpy

path, offset, elements = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
array = numpy.memmap(path, dtype="<f4", mode="r+", offset=offset, shape=(elements,))
print(json.dumps(array.tolist()))
array *= 2
