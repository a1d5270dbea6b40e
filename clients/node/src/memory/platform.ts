/** Where regions can be mapped. Asked before a server is, so that nobody is told of a socket that cannot be there. */

import { endianness } from "node:os";
import { TensordError } from "../errors.ts";

/** @throws TensordError `feature-unavailable`, with the platform's name */
export function checkPlatform(action: string, hint = "run the worker where the server runs"): void {
  const { platform, arch } = process;
  if (platform === "linux" && ["x64", "arm64"].includes(arch) && endianness() === "LE") return;
  throw new TensordError(
    "feature-unavailable",
    `Cannot ${action}: this is ${platform} on ${arch}, want Linux on x64 or arm64`,
    {
      hint,
    },
  );
}
