/**
 * Files that are no model file of ours, told by their first bytes and by what they are called, each with what to do instead. Pickles
 * among them: to read one is to run what its author wrote, so that no server should. Pure.
 */

import { fileLimits } from "../limits.ts";
import { toLatin1 } from "./bytes.ts";
import { unsupported } from "./refusal.ts";

export const pickleHint =
  "Load it where you trust who made it, and save its tensors: safetensors.torch.save_file(state_dict, path), or numpy.save of an array of numbers.";

interface Foreign {
  readonly what: string;
  readonly hint: string;
}

const pickle: Foreign = { what: "it is a pickle, which is a program and no data", hint: pickleHint };
const recompress = "Decompress it, or compress the file inside by zstd or gzip.";
const convert = "Convert it to safetensors, or load it with format raw, as bytes.";

/** By what stands in a content, in latin1, and at which byte. */
const byBytes: readonly (readonly [string, Foreign, at?: number])[] = [
  ...["\x02", "\x03", "\x04", "\x05"].map((protocol) => [`\x80${protocol}`, pickle] as const),
  [
    "version https://git-lfs",
    { what: "it is a Git LFS pointer, and no weights", hint: "Run git lfs pull in its folder." },
  ],
  ["\x89HDF\r\n", { what: "it is an HDF5 file", hint: convert }],
  ["TFL3", { what: "it is a TFLite file", hint: convert }, 4],
  ["\x1f\x8b", { what: "it is compressed twice", hint: recompress }],
  ["\x28\xb5\x2f\xfd", { what: "it is compressed twice", hint: recompress }],
  ["BZh", { what: "it is compressed by bzip2", hint: recompress }],
  ["\xfd7zXZ\0", { what: "it is compressed by xz", hint: recompress }],
  ["\x04\x22\x4d\x18", { what: "it is compressed by lz4", hint: recompress }],
  ["ustar", { what: "it is a tar archive", hint: "Unpack it, and load the file that has the weights." }, 257],
];

const byText: readonly (readonly [RegExp, Foreign])[] = [
  // Protocols 0 and 1, which are text: a dict, a list, a global name, an instance.
  [/^(\(dp?\d|\(lp?\d|c[\w.]+\n\w+\n|\(i[\w.]+\n|\]q|\}q)/, pickle],
  [
    /^\s*<(!doctype|html|\?xml)/i,
    { what: "it is a web page", hint: "Download the file anew: this is what a site said instead." },
  ],
];

/** By the end of the path, where the bytes say nothing. */
const byName: readonly (readonly [RegExp, Foreign])[] = [
  [/\.(pt|pth|ckpt|pkl|pickle|joblib)$/i, { what: "files of its name are pickles", hint: pickleHint }],
  [
    /\.json$/i,
    {
      what: "it is JSON, and no weights",
      hint: "Load the model's weights, or its .safetensors.index.json if it has shards.",
    },
  ],
  [/\.onnx$/i, { what: "it is an ONNX file", hint: "Load it with format raw: ONNX Runtime maps it as it is." }],
  [
    /\.bin$/i,
    { what: "its bytes do not say what they are", hint: `With format raw tensors can be given. ${pickleHint}` },
  ],
];

/** @throws TensordError `unsupported-format` of what is known to be something else. */
export function refuseForeignBytes(prefix: Uint8Array): void {
  const text = toLatin1(prefix, fileLimits.sniffedBytes);
  for (const [word, foreign, at = 0] of byBytes) if (text.startsWith(word, at)) throw refused(foreign);
  for (const [pattern, foreign] of byText) if (pattern.test(text)) throw refused(foreign);
}

/** Of a file of no format that is known. */
export function refuseForeignName(path: string): never {
  for (const [pattern, foreign] of byName) if (pattern.test(path)) throw refused(foreign);
  throw unsupported(
    "neither its bytes nor its name say what it is, want safetensors, GGUF, .npy or .npz",
    "Load it with format raw, and say which tensors it has.",
  );
}

function refused({ what, hint }: Foreign) {
  return unsupported(`${what}, want safetensors, GGUF, .npy or .npz`, hint);
}
