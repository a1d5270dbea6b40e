"""Sessions of ONNX Runtime whose weights all workers of a machine share: ``tensord.onnx.session``.

It imports without onnxruntime; what it does needs it (``pip install 'tensord[onnx]'``).
"""

from .session import session

__all__ = ["session"]
