/** The token that the command line sends: from a file that is named, or from the environment. Never an argument: those others can read. */

import { readFileSync } from "node:fs";
import { TensordError } from "../../memory/error.ts";

const form = /^[A-Za-z0-9._~+/-]{1,512}=*$/;

/**
 * What `path` has, else `TENSORD_TOKEN`, else what `TENSORD_TOKEN_FILE` has; undefined: none is sent.
 * @throws TensordError `validation-failed` for what is no token, which is not shown; `io-error`.
 */
export function findToken(
  path: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): string | undefined {
  if (path !== undefined) return check(readFile(path, "--token-file"), path);
  const text = environment.TENSORD_TOKEN?.trim() ?? "";
  if (text !== "") return check(text, "TENSORD_TOKEN");
  const file = environment.TENSORD_TOKEN_FILE ?? "";
  return file === "" ? undefined : check(readFile(file, "TENSORD_TOKEN_FILE"), file);
}

function readFile(path: string, from: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (cause) {
    const { code = "unknown" } = cause as NodeJS.ErrnoException;
    throw new TensordError(
      "io-error",
      `Cannot read the token from ${path} (${from}): ${code}`,
      { errno: code, hint: "Name a file that you can read, or set TENSORD_TOKEN." },
      { cause },
    );
  }
}

function check(text: string, where: string): string {
  if (form.test(text)) return text;
  throw new TensordError("validation-failed", `Cannot use the token of ${where}: it is none`, {
    hint: "It is a line of at most 512 of A-Z a-z 0-9 . _ ~ + / -, as the server's TENSORD_TOKENS_FILE has it.",
  });
}
