"""Modules of torch whose weights all workers of a machine share: ``tensord.torch.share_module``.

It imports without torch; what it does needs it (``pip install 'tensord[torch]'``).
"""

from .private_bytes import private_bytes
from .share_module import share_module

__all__ = ["private_bytes", "share_module"]
