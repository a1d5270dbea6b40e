/** Hostile files in compression, and files that are something else: pickles first. */

import { constants, gzipSync, zstdCompressSync } from "node:zlib";
import { npyFile, npyHeader, safetensorsFile, zipFile } from "../../harness/model-files.ts";
import type { Row } from "./row.ts";

const good = safetensorsFile(
  '{"w":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}',
  Buffer.from({ length: 4096 }),
);
const zeros = (byteSize: number, said = byteSize) =>
  safetensorsFile(`{"w":{"dtype":"U8","shape":[${said}],"data_offsets":[0,${said}]}}`, byteSize);
const checksummed = { params: { [constants.ZSTD_c_checksumFlag]: 1 } };
const gz = gzipSync(good);
const zst = zstdCompressSync(good, checksummed);
const bent = (bytes: Buffer, at: number) => {
  const copy = Buffer.from(bytes);
  copy[copy.length + at] = (copy.at(at) ?? 0) ^ 1;
  return copy;
};
/** A header of 100 MB, which is let in only as far as its bytes are there. */
const hugeHeader = Buffer.concat([safetensorsFile("{", 0, 100_000_000n), Buffer.alloc(99_999_999, " ")]);

export const packedRows: readonly Row[] = [
  ["truncated.safetensors.gz", "A gzip stream without its end.", "damaged or broken off", gz.subarray(0, -10)],
  ["truncated.safetensors.zst", "A zstd frame without its end.", "broken off, want whole frames", zst.subarray(0, -10)],
  [
    "truncated-checksum.safetensors.zst",
    "A zstd frame without the last byte of its checksum.",
    "broken off, want whole frames",
    zst.subarray(0, -1),
  ],
  [
    "truncated-header.safetensors.zst",
    "A zstd frame that ends in its header.",
    "broken off, want whole frames",
    zst.subarray(0, 5),
  ],
  ["checksum.safetensors.gz", "A gzip stream of another checksum.", "damaged or broken off", bent(gz, -6)],
  ["checksum.safetensors.zst", "A zstd frame of another checksum.", "damaged or broken off", bent(zst, -1)],
  ["bent.safetensors.zst", "A zstd frame with a bit that fell over.", "its", bent(zst, -20)],
  [
    "garbage.safetensors.gz",
    "Bytes after a gzip stream.",
    "damaged or broken off",
    Buffer.concat([gz, Buffer.from("garbage")]),
  ],
  [
    "garbage.safetensors.zst",
    "Bytes after a zstd frame.",
    "bytes of something else",
    Buffer.concat([zst, Buffer.from("garbage")]),
  ],
  [
    "garbage-short.safetensors.zst",
    "A byte after a zstd frame.",
    "broken off, want whole frames",
    Buffer.concat([zst, Buffer.of(0)]),
  ],
  [
    "longer.safetensors.zst",
    "A content that goes on after its tensors.",
    "goes on after byte",
    zstdCompressSync(Buffer.concat([good, Buffer.of(0)])),
  ],
  [
    "shorter.safetensors.zst",
    "A content that ends before its tensors.",
    "its content ends at byte",
    zstdCompressSync(good.subarray(0, -1)),
  ],
  [
    "header-past-end.safetensors.gz",
    "A header that is longer than the content.",
    "it ends at byte",
    gzipSync(safetensorsFile("{", 0, 5000n)),
  ],
  [
    "header-100-mb.safetensors.zst",
    "A header of 100 MB in a file of a few.",
    "compressed bytes become",
    zstdCompressSync(hugeHeader),
  ],
  [
    "header-over-100-mb.safetensors.zst",
    "A header of more than the format allows.",
    "its length is 100000001",
    zstdCompressSync(safetensorsFile("{", 0, 100_000_001n)),
  ],
  ["bomb.safetensors.gz", "80 MiB of zeros in 80 KB.", "compressed bytes become", gzipSync(zeros(80 << 20))],
  ["bomb.safetensors.zst", "80 MiB of zeros in 8 KB.", "compressed bytes become", zstdCompressSync(zeros(80 << 20))],
  [
    "bomb-hidden.safetensors.zst",
    "The same, of which the header says nothing.",
    "goes on after byte",
    zstdCompressSync(zeros(80 << 20, 4096)),
  ],
  [
    "bomb-said.safetensors.zst",
    "A header that says 8 PiB, so that a reader makes room.",
    "compressed bytes become",
    zstdCompressSync(zeros(4096, 2 ** 53 - 1000)),
  ],
  [
    "bomb.gguf.zst",
    "80 MiB of zeros after the magic of a format that has to be measured.",
    "compressed bytes become",
    zstdCompressSync(Buffer.concat([Buffer.from("GGUF"), Buffer.alloc(80 << 20)])),
  ],
  ["window.safetensors.zst", "A frame that asks for 512 MiB of memory.", "needs more than 128 MiB", longWindow()],
  [
    "dictionary.safetensors.zst",
    "A frame that needs a dictionary.",
    "damaged or broken off",
    Buffer.concat([zst.subarray(0, 4), Buffer.of(zst.readUInt8(4) | 1, 7), zst.subarray(5)]),
  ],
  ["twice.safetensors.gz", "gzip in gzip.", "it is compressed twice", gzipSync(gz)],
  ["mixed.safetensors.gz.zst", "gzip in zstd.", "it is compressed twice", zstdCompressSync(gz)],
  ["pickle.pt.zst", "A pickle in zstd.", "it is a pickle", zstdCompressSync(pickle(2))],
  ["pickle.pt.gz", "A pickle in gzip.", "it is a pickle", gzipSync(pickle(4))],
  [
    "pickle-archive.pt.zst",
    "torch's archive with a pickle in it, in zstd.",
    "an archive with a pickle",
    zstdCompressSync(torchArchive()),
  ],
  [
    "objects.npy.gz",
    "An array of Python objects in gzip.",
    "are a pickle",
    gzipSync(npyFile(npyHeader("'|O'", "(1,)"), pickle(3))),
  ],
];

const quiet = Buffer.from("\x01\x02nothing that is known", "latin1");

export const foreignRows: readonly Row[] = [
  ["protocol-2.pt", "A pickle.", "it is a pickle", pickle(2)],
  ["protocol-3.pkl", "A pickle.", "it is a pickle", pickle(3)],
  ["protocol-4.pth", "A pickle.", "it is a pickle", pickle(4)],
  ["protocol-5.bin", "A pickle.", "it is a pickle", pickle(5)],
  ["protocol-0.pkl", "A pickle in text: a dict.", "it is a pickle", Buffer.from("(dp0\nS'w'\np1\nI1\ns.")],
  [
    "protocol-0-call.pkl",
    "A pickle in text that calls a function.",
    "it is a pickle",
    Buffer.from("cos\nsystem\n(S'true'\ntR."),
  ],
  ["pickle.safetensors", "A pickle that calls itself safetensors.", "it is a pickle", pickle(4)],
  ["pickle.gguf", "A pickle that calls itself GGUF.", "it is a pickle", pickle(2)],
  ["pickle.npy", "A pickle that calls itself .npy, as numpy.load lets it.", "it is a pickle", pickle(3)],
  ["archive.pt", "torch's archive with a pickle in it.", "an archive with a pickle", torchArchive()],
  ["archive.safetensors", "The same by another name.", "an archive with a pickle", torchArchive()],
  ["unknown.pt", "Bytes that say nothing, by the name of a pickle.", "files of its name are pickles", quiet],
  ["unknown.bin", "Bytes that say nothing, by a name that says nothing.", "do not say what they are", quiet],
  ["unknown", "Bytes that say nothing, without a suffix.", "neither its bytes nor its name", quiet],
  [
    "lfs-pointer.safetensors",
    "What git has in the place of a large file.",
    "a Git LFS pointer",
    Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
  ],
  [
    "web-page.safetensors",
    "What a site said instead of the file.",
    "it is a web page",
    Buffer.from("<!DOCTYPE html><html><body>404</body></html>"),
  ],
  [
    "web-page.npy",
    "The same in capitals, after a line break.",
    "it is a web page",
    Buffer.from("\n<HTML><BODY>404</BODY></HTML>"),
  ],
  [
    "weights.h5",
    "HDF5.",
    "it is an HDF5 file",
    Buffer.concat([Buffer.from("\x89HDF\r\n\x1a\n", "latin1"), Buffer.alloc(64)]),
  ],
  ["model.tflite", "TFLite.", "it is a TFLite file", Buffer.from("\x1c\0\0\0TFL3\x14\0", "latin1")],
  [
    "model.onnx",
    "ONNX, which has no bytes to be known by.",
    "it is an ONNX file",
    Buffer.from("\x08\x08\x12\x07pytorch", "latin1"),
  ],
  [
    "model.tar",
    "A tar archive.",
    "it is a tar archive",
    Buffer.concat([Buffer.alloc(257, "a"), Buffer.from("ustar\0"), Buffer.alloc(249)]),
  ],
  ["model.safetensors.xz", "xz.", "it is compressed by xz", Buffer.from("\xfd7zXZ\0\0\x04", "latin1")],
  ["model.safetensors.bz2", "bzip2.", "it is compressed by bzip2", Buffer.from("BZh91AY&SY")],
  ["model.safetensors.lz4", "lz4.", "it is compressed by lz4", Buffer.from("\x04\x22\x4d\x18\x64", "latin1")],
];

/** A pickle of nothing, whose reader would run what stands in the place of the None. */
function pickle(protocol: number): Buffer {
  return Buffer.from([0x80, protocol, ...Buffer.from("N.")]);
}

function torchArchive(): Buffer {
  return zipFile([
    { name: "archive/data.pkl", bytes: pickle(2) },
    { name: "archive/data/0", bytes: Buffer.alloc(64) },
  ]);
}

function longWindow(): Buffer {
  const params = { [constants.ZSTD_c_windowLog]: 29, [constants.ZSTD_c_enableLongDistanceMatching]: 1 };
  // A content that is told beforehand would lower the window to its own size.
  const frame = Buffer.from(zstdCompressSync(good, { params }));
  // A header without the content's size, and a window of 2 ** (10 + 19).
  const size = frame.readUInt8(4) >> 6 === 0 ? 1 : 2;
  return Buffer.concat([frame.subarray(0, 4), Buffer.of(0x00, 19 << 3), frame.subarray(5 + size)]);
}
