"""``tensord.testing``: a private server for the tests of others."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import SHM_DIRECTORY, TENSORD, wait_for

import tensord
from tensord.testing import private_server


def names_of(instance: str) -> list[str]:
    return [name for name in os.listdir(SHM_DIRECTORY) if name.startswith(f"tensord.{instance}")]


def test_servers_run_beside_each_other_know_nothing_of_each_other_and_leave_nothing() -> None:
    with private_server(executable=TENSORD) as one, private_server(executable=TENSORD) as other:
        with one.connect() as client:
            client.create("weights", np.ones(10, np.float32), persist=True).close()
            assert [region.name for region in client.list()] == ["weights"]
        with other.connect() as client:
            assert [*client.list()] == []
        instances = [one.instance, other.instance]
        assert all(names_of(instance) for instance in instances)
    assert [names_of(instance) for instance in instances] == [[], []]


def test_a_process_with_its_environment_finds_it() -> None:
    program = "import tensord; print([region.name for region in tensord.connect().list()])"
    with private_server(executable=TENSORD) as server:
        with server.connect() as client:
            client.create("weights", np.ones(10, np.float32), persist=True).close()
        environ = {**os.environ, **server.environ}
        said = subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True, text=True)
    assert said.stdout == "['weights']\n"


def test_settings_reach_it_and_those_of_the_caller_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORD_MEMORY_LIMIT_BYTES", "nonsense")
    with private_server(executable=TENSORD, settings={"TENSORD_LOG_LEVEL": "debug"}) as server:
        wait_for(lambda: '"ready on' in server.log(), "it says where it listens")


def test_it_ends_and_leaves_nothing_when_the_process_that_runs_it_is_killed() -> None:
    program = f"""
import json, numpy as np
from tensord.testing import private_server
with private_server(executable={TENSORD!r}) as server:
    server.connect().create("weights", np.ones(10, np.float32), persist=True)
    print(json.dumps([server.instance, server.pid]), flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    instance, pid = json.loads(process.stdout.readline())
    assert names_of(instance)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not names_of(instance), "nothing of the instance is left")
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the server has ended")


def test_what_a_killed_one_leaves_is_purged_at_the_end_of_the_block() -> None:
    with private_server(executable=TENSORD) as server:
        with server.connect() as client:
            client.create("weights", np.ones(10, np.float32), persist=True).close()
        os.kill(server.pid, signal.SIGKILL)
    assert names_of(server.instance) == []


def test_without_a_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/nonexistent")
    with pytest.raises(tensord.FeatureUnavailable, match=r"tensord\[server\]"), private_server():
        pass
    with pytest.raises(tensord.FeatureUnavailable, match="No such file"), private_server(executable="/nonexistent"):
        pass


def test_a_server_that_does_not_start_is_quoted() -> None:
    with (
        pytest.raises(tensord.ServerUnavailable, match=r"ended with status 1, and wrote:\n.*TENSORD_PORT"),
        private_server(executable=TENSORD, settings={"TENSORD_PORT": "nonsense"}),
    ):
        pass


def test_the_fixtures_give_each_test_an_empty_server_in_every_process_of_a_run(tmp_path: Path) -> None:
    executable = tmp_path / "bin/tensord"
    executable.parent.mkdir()
    executable.write_text(f'#!/bin/sh\nexec {shlex.join(TENSORD)} "$@"\n')
    executable.chmod(0o755)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tensord.testing.plugin"]\n')
    (tmp_path / "test_weights.py").write_text(
        """
import numpy as np, pytest, tensord

@pytest.mark.parametrize("number", range(4))
def test_weights(number, tensord_client, tensord_server):
    assert [*tensord_client.list()] == [] and [model.name for model in tensord_client.models()] == ["default"]
    tensord_client.register_model("llama")
    tensord_client.create("weights", np.full(4, number), model="llama", persist=True).close()
    with tensord.connect() as client, client.attach("weights", model="llama", writable=True) as region:
        assert region.numpy().tolist() == [number] * 4
    print(tensord_server.instance)
"""
    )
    environ = {**os.environ, "PATH": f"{executable.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "-rP"]
    run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "4 passed" in run.stdout
    instances = {line for line in run.stdout.splitlines() if line.startswith("test-")}
    assert len(instances) in {1, 2}
    assert [name for instance in instances for name in names_of(instance)] == []
