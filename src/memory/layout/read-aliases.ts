/** The aliases of a file that anybody may have written, from its `__metadata__`, beside the tensors of its header. Pure. */

import { TensordError } from "../error.ts";
import { limits } from "../limits.ts";
import { quote } from "../naming.ts";
import { aliasesKey, elementBytes, findTarget, readAliasText } from "./aliases.ts";
import { isDtype } from "./dtype.ts";
import { type Tensor, tensorByteSize } from "./layout.ts";
import { checkTensorName } from "./tensor-name.ts";

/**
 * @param tensors all tensors that the header has.
 * @returns the aliases among them; none if there is no word of any.
 * @throws TensordError `validation-failed` if one of them cannot be; the file is a whole one without them.
 */
export function readAliases(tensors: readonly Tensor[], metadata: Readonly<Record<string, string>>): readonly Tensor[] {
  if (!Object.hasOwn(metadata, aliasesKey)) return [];
  const entries = readAliasText(metadata[aliasesKey] ?? "");
  if (tensors.length + entries.length > limits.regionTensors) {
    throw refused(
      `there are ${tensors.length + entries.length} tensors with them, want at most ${limits.regionTensors}`,
    );
  }
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return entries.map(({ name, dtype, shape, aliasOf, aliasByteOffset }) => {
    checkTensorName(name);
    if (byName.has(name)) throw refused(`${quote(name)} is a tensor with bytes of its own, want another name`);
    if (!isDtype(dtype)) throw refused(`${quote(name)} has dtype ${quote(dtype)}, want one of safetensors'`);
    const byteSize = tensorByteSize({ name, dtype, shape });
    const target = findTarget({ name, dtype, byteSize, aliasOf, aliasByteOffset }, byName);
    const byteOffset = (target?.byteOffset ?? 0) + aliasByteOffset;
    return { name, dtype, shape, byteOffset, byteSize, aligned: byteOffset % elementBytes(dtype) === 0, aliasOf };
  });
}

function refused(why: string): TensordError {
  const hint = "Write the file anew, with a list of aliases that fits its tensors or with none.";
  return new TensordError("validation-failed", `Cannot read ${aliasesKey}: ${why}`, { hint });
}
