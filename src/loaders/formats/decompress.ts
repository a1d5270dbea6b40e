/**
 * What comes out of compressed bytes, in pieces and in order, within a bound. The runtime's decoders work beside the event loop and
 * compare the checksums that the formats carry; no more than a few pieces are in memory.
 */

import { pipeline, Readable, type Transform } from "node:stream";
import { constants, createGunzip, createInflateRaw, createZstdDecompress } from "node:zlib";
import { fileLimits } from "../limits.ts";
import type { Compression } from "./format.ts";
import { invalid, unsupported } from "./refusal.ts";
import { ZstdFrames } from "./zstd-frames.ts";

export type Packing = Exclude<Compression, "none"> | "deflate";

const options = { chunkSize: fileLimits.pieceBytes };
const decoders: Readonly<Record<Packing, () => Transform>> = {
  gzip: () => createGunzip(options),
  // The default window of zstd's own program: what needs more memory was packed with --long or --ultra.
  zstd: () => createZstdDecompress({ ...options, params: { [constants.ZSTD_d_windowLogMax]: 27 } }),
  deflate: () => createInflateRaw(options),
};

/** What may come out of so many bytes. */
export function decompressedMaximum(compressedBytes: number): number {
  const byRatio = Math.max(fileLimits.decompressedSmallBytes, fileLimits.decompressedRatio * compressedBytes);
  return Math.min(byRatio, fileLimits.decompressedBytes);
}

/** @throws TensordError `invalid-model-file` of a content that a header says to be larger than may come out of it. */
export function checkDecompressed(byteSize: number, compressedBytes: number): void {
  const maximum = decompressedMaximum(compressedBytes);
  if (byteSize <= maximum) return;
  throw invalid(
    `${compressedBytes} compressed bytes become ${byteSize} and more, want at most ${maximum}`,
    "If it is what it should be, decompress it where there is room, and load the result.",
  );
}

/**
 * @param pieces the compressed bytes; what they throw is thrown on. @param compressedBytes how many there are of them.
 * @throws TensordError `invalid-model-file` of what is broken, broken off, or grows out of all proportion; `unsupported-format`
 * of zstd that asks for too much memory.
 */
export async function* decompress(
  pieces: AsyncIterable<Uint8Array>,
  packing: Packing,
  compressedBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const decoder = decoders[packing]();
  // The callback only keeps the pipeline from throwing by itself: what goes wrong comes out of the decoder.
  pipeline(Readable.from(packing === "zstd" ? watchFrames(pieces) : pieces), decoder, () => {});
  let byteSize = 0;
  try {
    for await (const piece of decoder as AsyncIterable<Uint8Array>) {
      byteSize += piece.length;
      checkDecompressed(byteSize, compressedBytes);
      yield piece;
    }
  } catch (error) {
    throw translate(error, packing);
  } finally {
    decoder.destroy();
  }
}

async function* watchFrames(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const frames = new ZstdFrames();
  for await (const piece of pieces) {
    frames.add(piece);
    yield piece;
  }
  frames.end();
}

/** A decoder's own failure, in our words; another one is not its business. */
function translate(error: unknown, packing: Packing): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "ZSTD_error_frameParameter_windowTooLarge") {
    return unsupported(
      "its zstd data needs more than 128 MiB of memory to be decompressed, want at most that",
      "Compress it anew without --long and --ultra.",
    );
  }
  if (!/^(Z_|ZSTD_)/.test(code)) return error;
  return invalid(
    `its ${packing} data is damaged or broken off (${(error as Error).message}), want what was packed`,
    undefined,
    error,
  );
}
