"""Modules that processes share: forked, spawned, or of programs that know nothing of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import LONG, TORCH, Child, Server

import tensord

pytest.importorskip("torch", reason="torch is an extra")

_MODEL = """
import torch, tensord
from tensord.torch import private_bytes, share_module
def build():
    module = torch.nn.Sequential(torch.nn.Embedding(1000, 256), torch.nn.Linear(256, 256))
    if not module[1].weight.is_meta:
        open(os.environ["BUILDS"], "a").write("built\\n")
    return module.to(torch.bfloat16)
def answer(module):
    with torch.no_grad():
        return [round(float(module(torch.arange(9)).float().sum()), 6), private_bytes(module)]
"""


def test_of_several_programs_one_builds_and_its_death_takes_nothing(
    server: Server, client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    script = f"""{_MODEL}
module = share_module("net", build, fingerprint=[1, "two"])
say([os.getpid(), answer(module)])
hear()
"""

    def programs() -> Child:
        return Child(script, imported=TORCH)

    with programs() as first, programs() as second, programs() as third:
        said = [child.hear() for child in (first, second, third)]
        assert (tmp_path / "builds").read_text() == "built\n"
        assert len({pid for pid, _ in said}) == 3
        assert said[0][1][1] == 0
        assert [answer for _, answer in said] == [said[0][1]] * 3
        for child in (first, second, third):
            child.say("end")
            child.finish()
    with programs() as late:
        assert late.hear()[1] == said[0][1]
        late.say("end")
        late.finish()
    assert (tmp_path / "builds").read_text() == "built\n"


def test_forked_workers_use_the_masters_copy_and_their_writes_are_their_own(
    server: Server, client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    script = f"""{_MODEL}
torch.set_num_threads(1)
module = share_module("net", build, fingerprint="1")
before = answer(module)
for _ in range(2):
    if os.fork() == 0:
        own = share_module("net", build, fingerprint="1")
        seen = [answer(module), answer(own)]
        with torch.no_grad():
            own[1].weight[0, 0] += 1
        say([seen, private_bytes(own), private_bytes(module)])
        os._exit(0)
for _ in range(2):
    assert os.wait()[1] == 0
say([before, answer(module)])
"""
    with Child(script, imported=TORCH) as child:
        *workers, master = [child.hear() for _ in range(3)]
        child.finish()
    assert master[0] == master[1]
    assert master[0][1] == 0
    for seen, own, inherited in workers:
        assert seen == [master[0], master[0]]
        assert 0 < own <= 4096
        assert inherited == 0
    assert (tmp_path / "builds").read_text() == "built\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_data_loader_use_one_copy(
    server: Server, client: tensord.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    # Each that is spawned imports torch.
    workers = 1 if method == "spawn" and not LONG else 2
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, sys
{_MODEL}
class Vectors(torch.utils.data.Dataset):
    module = None
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if self.module is None:
            self.module = share_module("net", build, fingerprint="1")
        with torch.no_grad():
            vector = self.module(torch.tensor([index])).float().sum()
        return torch.tensor([os.getpid(), index, float(vector), private_bytes(self.module)], dtype=torch.float64)
if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(Vectors(), num_workers={workers}, multiprocessing_context={method!r})
    say(torch.cat(list(loader)).tolist())
""")
    # As a file, which workers that are spawned import.
    with Child(f"__file__ = {str(program)!r}; exec(open(__file__).read())", imported=TORCH) as child:
        rows = child.hear()
        child.finish()
    assert len(rows) == 8
    assert len({pid for pid, *_ in rows}) == workers
    assert child.pid not in {pid for pid, *_ in rows}
    assert [private for *_, private in rows] == [0] * 8
    assert (tmp_path / "builds").read_text() == "built\n"


def test_the_package_is_imported_without_torch(server: Server) -> None:
    script = """
from tensord.torch import private_bytes, share_module
say("torch" in sys.modules)
sys.modules["torch"] = None
for call in (lambda: share_module("net", list, fingerprint="1"), lambda: private_bytes([])):
    try:
        call()
    except tensord.FeatureUnavailable as error:
        say(str(error))
"""
    with Child(script) as child:
        assert child.hear() is False
        assert all("pip install torch" in child.hear() for _ in range(2))
        child.finish()
