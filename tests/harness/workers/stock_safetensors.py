"""A stock reader: safetensors' safe_open with the frameworks that are named after the path, of those that are installed: ``numpy``,
``pt``. Prints what it found."""

import json
import sys

from safetensors import safe_open

found = {}
for framework in sys.argv[2:]:
    try:
        __import__("torch" if framework == "pt" else "numpy")
    except ImportError:
        continue
    with safe_open(sys.argv[1], framework) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        found[framework] = {
            "metadata": file.metadata(),
            "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
            "dtypes": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()},
            "sums": {name: float(tensor.sum()) for name, tensor in tensors.items()},
        }
print(json.dumps(found))
