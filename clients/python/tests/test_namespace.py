"""A process with another /dev/shm is told so, instead of "no such file"."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Child, Server, wait_for

import tensord
from tensord import _api


def test_a_descriptor_of_another_device_is_another_namespace(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client.create("here", [1], ttl=600):
        real = client.get("here")
        fake = replace(real, storage=replace(real.storage, dev=1 << 40))
        monkeypatch.setattr(_api.Api, "region_by_name", lambda *_, **__: fake)
        monkeypatch.setattr(_api.Api, "region", lambda *_, **__: fake)
        with pytest.raises(tensord.WrongNamespace, match="mount the same volume in both containers") as caught:
            client.attach("here")
        assert f"here is device {real.storage.dev}, the server's is {1 << 40}" in str(caught.value)
        assert caught.value.fields == {"dev_here": real.storage.dev, "dev_server": 1 << 40}


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount, and unshare(1) is needed"
)
def test_a_process_in_another_mount_namespace_is_told_so(
    server: Server, client: tensord.Client, tmp_path: Path
) -> None:
    # Only the socket of HTTP is reached, over a bind mount: that of the broker is as far away as the regions.
    script = """
client = tensord.connect()
for attempt in (lambda: client.attach("here"), lambda: client.create("there", [1], ttl=600, storage="shm")):
    try: attempt()
    except tensord.WrongNamespace as error: say([str(error), error.fields])
try: client.open(tensord.TensorReference.from_dict(hear()))
except tensord.StaleRef as error: say([str(error), error.fields])
"""
    directory = f"/dev/shm/tensord.{server.instance}"
    mount = (
        f"mount --bind {directory} {tmp_path} && mount -t tmpfs none /dev/shm && mkdir {directory} && "
        f'touch {directory}/http.sock && mount --bind {tmp_path}/http.sock {directory}/http.sock && exec "$@"'
    )
    with client.create("here", [1], ttl=600) as region:
        with Child(script, prefix=("unshare", "-m", "sh", "-c", mount, "sh")) as child:
            for _ in range(2):
                text, fields = child.hear()
                assert f"the server's is {region.descriptor.storage.dev}" in text
                assert fields["dev_server"] == region.descriptor.storage.dev != fields["dev_here"]
                # Cause and cure of the other way in.
                assert f"{directory}/broker.sock: it is not here" in text
                assert "say where it is in TENSORD_BROKER_SOCKET" in text
            child.say(region.ref().to_dict())
            text, fields = child.hear()
            assert fields == {"cause": "wrong-namespace"}
            child.finish()
        # A create whose memory cannot be reached is taken back.
        assert [found.name for found in client.list()] == ["here"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="only root can make PID namespaces, and unshare(1) is needed",
)
def test_the_pid_of_a_worker_in_a_container_is_told_as_it_is_here(client: tensord.Client) -> None:
    script = """
import os
with tensord.connect(name="inner") as client, client.attach("here"):
    say(os.getpid())
    hear()
"""
    with client.create("here", [1], ttl=600) as region:
        region.seal()
        with Child(script, prefix=("unshare", "-pf", "--mount-proc")) as child:
            assert child.hear() == 1

            def inner() -> tensord.ClientDescriptor | None:
                clients = [holder.client for holder in client.get("here").holders]
                return next((one for one in clients if one is not None and one.name == "inner"), None)

            wait_for(lambda: inner() is not None, "the worker is among the holders")
            told = inner()
            assert told is not None
            assert told.pid is not None
            assert (told.namespace_pid, str(told.pid_namespace)[:5]) == (1, "pid:[")
            assert Path(f"/proc/{told.pid}/status").read_text().partition("NSpid:")[2].split()[:2] == [
                str(told.pid),
                "1",
            ]
            child.say("end")
            child.finish()
