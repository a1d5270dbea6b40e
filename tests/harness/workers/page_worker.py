"""A worker of an elastic pool as docs/protocol.md says, with the standard library alone.

It reads one JSON command a line and answers each with one JSON line. Tests spawn it, tell it what to do, and kill it.
It has descriptors in place of mappings: on the stand-in driver a page's is a file, and can be read and written.
"""

import json
import os
import socket
import sys

MOST_FDS = 253


class Worker:
    def __init__(self):
        self.socket = None
        self.slot = None
        self.slot_fd = None
        self.pool = None
        self.held = {}
        self.places = {}
        self.sequence = "0"
        self.last_id = 0

    def ask(self, op, **members):
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "op": op, **members}).encode())
        data, fds, flags, _ = socket.recv_fds(self.socket, 65536, MOST_FDS)
        answer = json.loads(data) if data else {"ok": False, "problem": {"code": "gone"}}
        if flags & socket.MSG_CTRUNC or len(fds) != len(answer.get("fds", [])):
            raise RuntimeError(f"{len(fds)} descriptors came, want {answer.get('fds')}")
        if not answer["ok"]:
            raise RuntimeError(answer["problem"]["code"])
        return answer, fds

    def attach(self, path, device):
        if self.socket is not None:
            self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)
        self.ask("hello", v=1)
        again = {}
        if self.slot is not None:
            again = {"slot": self.slot, "taken": [[page, 1] for page in self.held]}
        return self.look(device, **again)

    def look(self, device, **again):
        answer, fds = self.ask("pool", device_uuid=device, moves=True, **again)
        named = dict(zip(answer["fds"], fds, strict=True))
        if "slot" in named:
            self.slot, self.slot_fd = answer["slot"], named["slot"]
        self.pool = answer["pool"]
        self.sequence = answer["sequence"]
        size = answer["page_size"]
        runs = json.loads(os.pread(named["runs"], answer["runs_byte_size"], 0))
        os.close(named["runs"])
        self.places = {
            offset + each * size: first + each for offset, length, first in runs for each in range(length // size)
        }
        return {"slot": self.slot, "pages": sorted(self.places.values())}

    def converge(self, device):
        """Lets go of what is there no longer, and takes what is new. Each page holds its own number."""
        self.look(device)
        pages = set(self.places.values())
        left = [page for page in self.held if page not in pages]
        for page in left:
            os.close(self.held.pop(page))
        self.ask("let_go", pool=self.pool, pages=[[page, 1] for page in left], sequence=self.sequence)
        wanted = [page for page in pages if page not in self.held]
        for start in range(0, len(wanted), 100):
            part = wanted[start : start + 100]
            answer, fds = self.ask("take", pool=self.pool, pages=[[page, 1] for page in part])
            self.held.update(zip(answer["pages"], fds, strict=True))
        self.check()
        return sorted(self.held)

    def check(self):
        for page, fd in self.held.items():
            there = int.from_bytes(os.pread(fd, 8, 0), "little")
            if there == 0:
                os.pwrite(fd, page.to_bytes(8, "little"), 0)
            elif there != page:
                raise RuntimeError(f"page {page} holds what is page {there}'s")

    def leave(self):
        for fd in self.held.values():
            os.close(fd)
        self.held = {}
        self.ask("leave", pool=self.pool)
        os.close(self.slot_fd)
        self.slot = self.slot_fd = None


worker = Worker()
for line in sys.stdin:
    command = json.loads(line)
    try:
        value = getattr(worker, command.pop("do"))(**command)
        answer = {"ok": True, "value": value}
    except (OSError, RuntimeError) as error:
        answer = {"ok": False, "error": str(error)}
    print(json.dumps(answer), flush=True)
