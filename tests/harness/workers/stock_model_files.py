"""Stock writers and readers of model files: safetensors, NumPy and gguf. Writes files of every dtype into a folder, reads
each again with the library of its format, and prints what that found; null of pickles."""

import ctypes
import gzip
import hashlib
import json
import sys
import warnings
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from safetensors import deserialize, serialize
from safetensors._safetensors_rust import TensorSpec

folder = Path(sys.argv[1])
random = np.random.default_rng(2029)
found: dict[str, object] = {}

safetensors_dtypes = {
    "bool": 1,
    "float4_e2m1fn_x2": 1,
    "float8_e8m0fnu": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
    "complex64": 8,
}
numpy_dtypes = ["?", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8", "c8"]
safetensors_of_numpy = ["BOOL", "I8", "U8", "I16", "U16", "F16", "I32", "U32", "F32", "I64", "U64", "F64", "C64"]
shapes = {"scalar": (), "empty": (3, 0, 2), "row": (7,), "matrix": (5, 3), "deep": (2, 1, 3, 4)}


def describe(dtype: str, shape: object, data: bytes, **logical: object) -> dict[str, object]:
    shape = [int(dimension) for dimension in shape]
    return {"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(data).hexdigest(), **logical}


def record(path: Path, tensors: dict[str, object], metadata: dict[str, str]) -> None:
    """Also as a file that is compressed, whose arrays are the same."""
    found[path.name] = {"tensors": tensors, "metadata": metadata}
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    found[packed.name] = found[path.name]


def read_safetensors(path: Path, metadata: dict[str, str]) -> None:
    tensors = deserialize(path.read_bytes())
    record(path, {name: describe(t["dtype"], t["shape"], bytes(t["data"])) for name, t in tensors}, metadata)


def write_safetensors() -> None:
    kept = []
    specs = {}
    for dtype, size in safetensors_dtypes.items():
        for name, shape in shapes.items():
            if dtype.endswith("_x2") and name == "scalar":
                continue  # Two elements a byte: there is no half of one.
            data = random.bytes(int(np.prod(shape, dtype=int)) * size)
            buffer = ctypes.create_string_buffer(data, max(1, len(data)))
            kept.append(buffer)
            place = ctypes.addressof(buffer)
            specs[f"{dtype}.{name}"] = TensorSpec(dtype=dtype, shape=list(shape), data_ptr=place, data_len=len(data))
    path = folder / "every.safetensors"
    path.write_bytes(serialize(specs, {"format": "pt", "é": '"'}))
    read_safetensors(path, {"format": "pt", "é": '"'})
    # Those that the writer has no name for, and the reader has.
    header = json.dumps(
        {
            "a": {"dtype": "F6_E2M3", "shape": [8], "data_offsets": [0, 6]},
            "b": {"dtype": "F6_E3M2", "shape": [2, 2], "data_offsets": [6, 9]},
        }
    ).encode()
    path = folder / "six.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + random.bytes(9))
    read_safetensors(path, {})


def to_array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    data = random.integers(0, 2, size, np.uint8) if dtype == "?" else np.frombuffer(random.bytes(size), np.uint8)
    return data.view(dtype).reshape(shape)


def write_numpy() -> None:
    arrays = {}
    for dtype, name in zip(numpy_dtypes, safetensors_of_numpy, strict=True):
        for kind, shape in shapes.items():
            array = to_array(dtype, shape)
            arrays[f"{name}.{kind}"] = array
            path = folder / f"{name}.{kind}.npy"
            np.save(path, array)
            record(path, {f"{name}.{kind}": describe(name, array.shape, np.load(path).tobytes())}, {})
    for version in ((1, 0), (2, 0), (3, 0)):
        path = folder / f"version-{version[0]}.npy"
        with path.open("wb") as file:
            np.lib.format.write_array(file, arrays["F32.matrix"], version)
        record(path, {path.stem: describe("F32", (5, 3), np.load(path).tobytes())}, {})
    for path, save in ((folder / "stored.npz", np.savez), (folder / "deflated.npz", np.savez_compressed)):
        save(path, **arrays, **{"layers/0/é": arrays["F32.matrix"]})
        with np.load(path) as read:
            tensors = {
                name: describe("F32" if "/" in name else name.split(".")[0], read[name].shape, read[name].tobytes())
                for name in read.files
            }
        record(path, tensors, {})


def write_gguf() -> None:
    for alignment in (32, 256):
        path = folder / f"every-{alignment}.gguf"
        writer = GGUFWriter(path, "llama")
        if alignment != 32:
            writer.add_custom_alignment(alignment)
        writer.add_name("a name\n é")
        writer.add_uint64("many", 2**64 - 1)
        writer.add_int64("few", -(2**63))
        writer.add_float64("half", 0.5)
        writer.add_bool("yes", True)
        writer.add_array("short", [1, 2, 3])
        writer.add_token_list([f"token {i}" for i in range(30_000)])
        for kind in GGMLQuantizationType:
            elements, size = gguf.GGML_QUANT_SIZES[kind]
            for name, shape in (("row", (2 * elements,)), ("deep", (2, 3, elements))):
                rows = [*shape[:-1], shape[-1] // elements * size]
                data = np.frombuffer(random.bytes(int(np.prod(rows))), np.uint8).reshape(rows)
                writer.add_tensor(f"{kind.name}.{name}", data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        reader = GGUFReader(path)
        tensors = {}
        for tensor in reader.tensors:
            kind = tensor.tensor_type
            shape = [int(extent) for extent in reversed(tensor.shape.tolist())]
            elements, size = gguf.GGML_QUANT_SIZES[kind]
            data = tensor.data.tobytes()
            if elements == 1:
                tensors[tensor.name] = describe(kind.name, shape, data)
            else:
                rows = [*shape[:-1], shape[-1] // elements * size]
                tensors[tensor.name] = describe("U8", rows, data, logical={"type": kind.name, "shape": shape})
        expected = {
            "general.architecture": "llama",
            "general.name": "a name\n é",
            "many": str(2**64 - 1),
            "few": str(-(2**63)),
            "half": "0.5",
            "yes": "true",
            "short": "[1,2,3]",
        }
        assert reader.get_field("general.name").contents() == expected["general.name"]
        assert reader.alignment == alignment
        record(path, tensors, {**expected, **({} if alignment == 32 else {"general.alignment": str(alignment)})})


def copy_own_files() -> None:
    """What NumPy tests itself with: arrays that Python 2 wrote, and some of objects, which are pickles."""
    for path in sorted((Path(np.lib.__file__).parent / "tests/data").glob("*.np[yz]")):
        copy = folder / path.name
        copy.write_bytes(path.read_bytes())
        if "objarr" in path.name:
            found[path.name] = None
            continue
        with warnings.catch_warnings(action="ignore"):
            array = np.load(copy)
        found[path.name] = {"tensors": {path.stem: describe("F64", array.shape, array.tobytes())}, "metadata": {}}


write_safetensors()
write_numpy()
write_gguf()
copy_own_files()
print(json.dumps(found))
