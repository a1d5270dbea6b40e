"""A half of peers.ts: bytes are handed to another process, which reads them and answers with one byte, by every way in
turn.

Usage: hand_off.py <url> <cores> <bytes> … Prints one JSON object: microseconds by size and way, and what is not here.
Both processes are on one core, or each has one of its own: to wake an idle core costs more than most of what is
measured, so that the placement is given and not left to chance.

Every way has the same work in it: the sender copies an array to where it is sent from, the receiver adds up every
4096th byte where it has come, and answers. Where a way has no wake-up of its own, a socket has.
"""

import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUNDS = {64: 600, 4096: 600, 1 << 20: 200, 64 << 20: 16}
TURN = 8
STRIDE = 4096
INDEX = struct.Struct("<Q")


def look(array):
    return bytes([int(array[::STRIDE].sum()) & 0xFF])


def receive(sock, room):
    view = memoryview(room)
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]


class ByHand:
    """One mapping that both have, kept, and an index over the socket: what shared memory costs at least."""

    title = "by hand"

    def __init__(self, sock, size, file, **_):
        self._sock = sock
        fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, size)
        self._array = np.frombuffer(mmap.mmap(fd, size), np.uint8)
        os.close(fd)
        self._index = bytearray(INDEX.size)

    def send(self, source):
        np.copyto(self._array, source)
        self._sock.sendall(INDEX.pack(0))
        return self._sock.recv(1)

    def serve(self):
        receive(self._sock, self._index)
        self._sock.sendall(look(self._array))


class Socket:
    """The bytes themselves, over a Unix socket."""

    title = "Unix socket"

    def __init__(self, sock, size, **_):
        self._sock = sock
        self._room = np.ones(size, np.uint8)

    def send(self, source):
        self._sock.sendall(source.data)
        return self._sock.recv(1)

    def serve(self):
        receive(self._sock, self._room)
        self._sock.sendall(look(self._room))


class Zmq:
    title = "zmq"

    def __init__(self, sock, size, file, is_sender):
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        if is_sender:
            self._socket.bind(f"ipc://{file}.zmq")
        else:
            self._socket.connect(f"ipc://{file}.zmq")

    def send(self, source):
        self._socket.send(source, copy=source.nbytes < 1 << 16)
        return self._socket.recv()

    def serve(self):
        self._socket.send(look(np.frombuffer(self._socket.recv(copy=False).buffer, np.uint8)))

    def stop(self):
        self._context.destroy(linger=0)


class Iceoryx2:
    """A loaned sample; the receiver is woken by a byte over the socket."""

    title = "iceoryx2"

    def __init__(self, sock, size, file, is_sender):
        import iceoryx2
        from systems import to_array

        self._sock, self._size, self._to_array = sock, size, to_array
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self._node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        name = iceoryx2.ServiceName.new(f"{Path(file).name}-{size}")
        service = self._node.service_builder(name).publish_subscribe(iceoryx2.Slice[ctypes.c_uint8]).open_or_create()
        if is_sender:
            self._port = service.publisher_builder().initial_max_slice_len(size).create()
        else:
            self._port = service.subscriber_builder().create()

    def send(self, source):
        sample = self._port.loan_slice_uninit(source.nbytes)
        self._to_array(sample.payload())[:] = source
        sample.assume_init().send()
        self._sock.sendall(b"1")
        return self._sock.recv(1)

    def serve(self):
        if not self._sock.recv(1):
            raise EOFError
        sample = self._port.receive()
        answer = look(self._to_array(sample.payload()))
        sample.delete()
        self._sock.sendall(answer)

    def stop(self):
        self._port.delete()


class Ring:
    """A request of a ring, and its answer: neither side has a socket."""

    title = "tensord ring"

    def __init__(self, _, size, file, is_sender):
        import tensord

        if is_sender:
            self._client = tensord.connect(os.environ["PEERS_URL"], wait=10)
            self._ring = self._client.ring(slots=2, slot_bytes=-(-size // 64) * 64, ttl=600)
            Path(f"{file}.ring").write_text(self._ring.ref().to_json())
        else:
            self._client = tensord.connect("unix:///nobody/listens.sock")
            ref = tensord.TensorReference.from_json(Path(f"{file}.ring").read_text())
            self._receiver = self._client.receiver(ref, writable=True)
            self._answer = np.empty(1, np.uint8)

    def send(self, source):
        with self._ring.call(source) as call:
            return bytes(call.result())

    def serve(self):
        with self._receiver.receive() as message:
            self._answer[0] = look(message.numpy())[0]
            message.answer(self._answer)

    def stop(self):
        self._client.close()


class RingBySocket(Ring):
    """A slot of a ring, and its packed reference over the socket, by which the answer comes as well."""

    title = "tensord ring by socket"

    def __init__(self, sock, size, file, is_sender):
        super().__init__(sock, size, f"{file}.by-socket", is_sender)
        self._sock = sock
        self._room = bytearray(128)

    def send(self, source):
        self._sock.sendall(self._ring.put(source, packed=True))
        return self._sock.recv(1)

    def serve(self):
        receive(self._sock, self._room)
        with self._receiver.open(self._room) as message:
            answer = look(message.numpy())
        self._sock.sendall(answer)


WAYS = (ByHand, Socket, Ring, RingBySocket, Iceoryx2, Zmq)


def serve(sock, control):
    """The other process: makes each way that it is told of, and answers as often as it is told."""
    ways = {}
    for line in control:
        what, *rest = json.loads(line)
        try:
            if what == "make":
                title, size, file = rest
                ways[title] = next(way for way in WAYS if way.title == title)(
                    sock, size=size, file=file, is_sender=False
                )
            elif what == "serve":
                title, rounds = rest
                for _ in range(rounds):
                    ways[title].serve()
            else:
                for way in ways.values():
                    getattr(way, "stop", lambda: None)()
                ways.clear()
            answer = None
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        control.write(json.dumps(answer) + "\n")
        control.flush()


def main():
    url, cores, *sizes = sys.argv[1:]
    os.environ["PEERS_URL"] = url
    data, control = socket.socketpair(), socket.socketpair()
    allowed = sorted(os.sched_getaffinity(0))
    is_child = os.fork() == 0
    os.sched_setaffinity(0, {allowed[-1] if is_child and int(cores) > 1 else allowed[0]})
    if is_child:
        # Else nobody here would see the other's end.
        data[0].close()
        control[0].close()
        serve(data[1], control[1].makefile("rw"))
        os._exit(0)
    data[1].close()
    control[1].close()
    ours, our_control = data[0], control[0].makefile("rw")

    def tell(*value):
        our_control.write(json.dumps(value) + "\n")
        our_control.flush()

    def hear():
        error = json.loads(our_control.readline())
        if error is not None:
            raise RuntimeError(error)

    times, absent = {}, {}
    with tempfile.TemporaryDirectory(prefix="peers-", dir="/dev/shm") as folder:
        for size in map(int, sizes):
            source = np.random.default_rng(1).integers(0, 256, size, np.uint8)
            ways = []
            for kind in WAYS:
                file = f"{folder}/{size}"
                try:
                    way = kind(ours, size=size, file=file, is_sender=True)
                    tell("make", kind.title, size, file)
                    hear()
                    ways.append(way)
                except Exception as error:
                    absent[kind.title] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            found = times[str(size)] = {way.title: [] for way in ways}
            expected = look(source)
            for turn in range(ROUNDS.get(size, 16) // TURN + 1):
                for way in ways:
                    tell("serve", way.title, TURN)
                    for _ in range(TURN):
                        begin = time.perf_counter()
                        answer = way.send(source)
                        elapsed = time.perf_counter() - begin
                        assert bytes(answer) == expected, way.title
                        # The first turn pays for what is made once.
                        if turn > 0:
                            found[way.title].append(elapsed * 1e6)
                    hear()
            tell("stop")
            hear()
            for way in ways:
                getattr(way, "stop", lambda: None)()
    our_control.close()
    ours.close()
    print(json.dumps({"times": times, "absent": absent}))
    sys.stdout.flush()
    # Whatever a library leaves running is not waited for.
    os._exit(0)


main()
