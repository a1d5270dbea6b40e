"""A model as ONNX Runtime saved it, with its weights where a region has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .model_proto import EXTERNAL_DATA, KEY, LOCATION, VALUE, external_data, inside
from .protobuf import LENGTH_DELIMITED, Malformed, fields, reader_of, to_field, to_varint

_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT = 7, 1, 5, 11, 12
_NODE_OUTPUT, _VALUE_NAME = 2, 1
_TENSOR_NAME, _RAW_DATA, _DATA_LOCATION = 8, 9, 14
# A field that no model has: readers pass over what they do not know.
_PAD = 16_000


def relocate(model: bytes, data: npt.NDArray[np.uint8], location: str, shift: int) -> bytes:
    """The model with all tensors that are in ``data``, and what is packed of them, in the file ``location`` (a name in
    the model's folder), ``shift`` bytes behind where they were.

    Those of graphs inside the graph become the outermost one's, where they are seen as well: inside, ONNX Runtime
    refuses a file that has more than one name. Raises ``Malformed`` for one that is not in ``data``.
    """
    move = _Move(data, location, shift, _definitions("model", model, 0))
    out = []
    for each in fields(reader_of(model), 0, len(model)):
        if each.number == _GRAPH and each.wire_type == LENGTH_DELIMITED:
            graph = move.graph(model[each.value : each.end], 0)
            out.append(to_field(_GRAPH, graph + b"".join(to_field(_INITIALIZER, tensor) for tensor in move.lifted)))
        else:
            out.append(model[each.begin : each.end])
    return b"".join(out)


@dataclass
class _Move:
    data: npt.NDArray[np.uint8]
    location: str
    shift: int
    # How often a name is given to something, in whichever graph.
    definitions: Counter[bytes]
    lifted: list[bytes] = field(default_factory=list)

    def graph(self, graph: bytes, depth: int) -> bytes:
        outputs = set(_names(graph, _OUTPUT)) if depth else set()
        out = []
        for each in fields(reader_of(graph), 0, len(graph)):
            value = graph[each.value : each.end]
            if each.number == _INITIALIZER and LOCATION in value and "location" in external_data(value):
                if depth == 0:
                    out.append(to_field(_INITIALIZER, self._moved(value)))
                elif self.definitions[name := _name_of(value)] == 1 and name not in outputs:
                    self.lifted.append(self._moved(value))
                else:
                    out.append(to_field(_INITIALIZER, self._within(value)))
            elif each.number == _NODE and LOCATION in value:
                out.append(to_field(_NODE, self._node("node", value, depth)))
            else:
                out.append(graph[each.begin : each.end])
        return b"".join(out)

    def _node(self, kind: str, message: bytes, depth: int) -> bytes:
        """A node, or an attribute of one."""
        out = []
        for each in fields(reader_of(message), 0, len(message)):
            value = message[each.value : each.end]
            within = inside(kind, each.number, each.wire_type, depth)
            if within == "attribute":
                out.append(to_field(each.number, self._node("attribute", value, depth)))
            elif within == "graph":
                out.append(to_field(each.number, self.graph(value, depth + 1)))
            else:
                out.append(message[each.begin : each.end])
        return b"".join(out)

    def _moved(self, tensor: bytes) -> bytes:
        entries = _placed(tensor)
        entries["location"] = self.location
        entries["offset"] = str(self._at(entries["offset"], entries.get("length", "0")) + self.shift)
        for key in entries:
            if key.startswith("prepacked_"):
                # <kernel>+<hash>|<offset>;<length>;<alignment>|…, as ONNX Runtime writes it.
                name, *blobs = entries[key].split("|")
                entries[key] = "|".join([name, *map(self._moved_blob, blobs)])
        whole = (to_field(KEY, key.encode()) + to_field(VALUE, value.encode()) for key, value in entries.items())
        return _without(tensor, EXTERNAL_DATA) + b"".join(to_field(EXTERNAL_DATA, entry) for entry in whole)

    def _moved_blob(self, blob: str) -> str:
        offset, _, rest = blob.partition(";")
        return f"{self._at(offset, rest.partition(';')[0]) + self.shift};{rest}"

    def _within(self, tensor: bytes) -> bytes:
        """The same tensor with its bytes inside."""
        entries = _placed(tensor)
        begin = self._at(entries["offset"], entries.get("length", ""))
        raw = self.data[begin : begin + int(entries["length"])].tobytes()
        return _without(tensor, EXTERNAL_DATA, _DATA_LOCATION) + to_field(_RAW_DATA, raw)

    def _at(self, offset: str, length: str) -> int:
        if offset.isdecimal() and length.isdecimal() and int(offset) + int(length) <= len(self.data):
            return int(offset)
        raise Malformed(f"weights of {length or 'unknown'} bytes at {offset!r}, in a file of {len(self.data)}")


def _placed(tensor: bytes) -> dict[str, str]:
    return {"offset": "0", **external_data(tensor)}


def _without(message: bytes, *numbers: int) -> bytes:
    kept = (each for each in fields(reader_of(message), 0, len(message)) if each.number not in numbers)
    return b"".join(message[each.begin : each.end] for each in kept)


def _name_of(tensor: bytes) -> bytes:
    return next(iter(_values(tensor, _TENSOR_NAME)), b"")


def _names(graph: bytes, number: int) -> list[bytes]:
    """Of a graph's inputs, or its outputs."""
    return [name for each in _values(graph, number) for name in _values(each, _VALUE_NAME)]


def _values(message: bytes, number: int) -> list[bytes]:
    found = (each for each in fields(reader_of(message), 0, len(message)) if each.number == number)
    return [message[each.value : each.end] for each in found]


def _definitions(kind: str, message: bytes, depth: int) -> Counter[bytes]:
    """How often each name is an initializer's, an input's or a node's output's, in all graphs."""
    found: Counter[bytes] = Counter()
    if kind == "graph":
        found.update(_names(message, _INPUT))
        found.update(map(_name_of, _values(message, _INITIALIZER)))
    elif kind == "node":
        found.update(_values(message, _NODE_OUTPUT))
    for each in fields(reader_of(message), 0, len(message)):
        within = inside(kind, each.number, each.wire_type, depth)
        if within in ("graph", "node", "attribute"):
            found.update(_definitions(within, message[each.value : each.end], depth + 1))
    return found


def padded(model: bytes, byte_size: int) -> bytes:
    """The same model in exactly so many bytes, which must be at least 9 more than it has."""
    tag = to_varint(_PAD << 3 | LENGTH_DELIMITED)
    room = byte_size - len(model) - len(tag) - 5
    assert room >= 0, f"a model of {len(model)} bytes for {byte_size}"
    # A length of exactly five bytes: a varint may be longer than it must be.
    length = bytes((room >> (7 * index)) & 0x7F | 0x80 for index in range(4)) + bytes([room >> 28])
    return model + tag + length + bytes(room)
