"""A private server for the tests of programs that use tensord.

Needs the server, ``tensord``, beside Python or on the ``PATH``. With pytest, ``pytest_plugins =
["tensord.testing.plugin"]`` in the top ``conftest.py`` makes two fixtures: ``tensord_server`` and ``tensord_client``.
"""

from .private_server import PrivateServer, private_server

__all__ = ["PrivateServer", "private_server"]
