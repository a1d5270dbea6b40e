/** The token that says who asks: from an argument, the environment, or a file, which is read again as it changes. */

import { readFileSync } from "node:fs";
import { TensordError } from "../errors.ts";

/** As RFC 6750 has it: nothing else can stand in the header. */
const form = /^[A-Za-z0-9._~+/-]+=*$/;
const maxCharacters = 512;
/** A file is asked for no more often: the server looks as often whether its own has changed. */
const keepMs = 1000;

/** One token, or the file that has it. It shows in no log: only `read` tells it. */
export interface Token {
  /** The token as it is now. @throws TensordError `validation-failed` if the file cannot be read, or has none. */
  read(): string;
}

/**
 * `given`, else `TENSORD_TOKEN`, else what the file `TENSORD_TOKEN_FILE` has; undefined: none is sent.
 * @throws TensordError `validation-failed` for what is no token, which is not shown.
 */
export function findToken(
  given: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Token | undefined {
  if (given !== undefined) return toToken(check(given.trim(), "the argument token"));
  const fromEnvironment = (env.TENSORD_TOKEN ?? "").trim();
  if (fromEnvironment !== "") return toToken(check(fromEnvironment, "TENSORD_TOKEN"));
  const path = env.TENSORD_TOKEN_FILE ?? "";
  if (path === "") return undefined;
  const token = toFileToken(path);
  token.read();
  return token;
}

function toToken(text: string): Token {
  return { read: () => text };
}

function toFileToken(path: string): Token {
  let kept = "";
  let until = 0;
  return {
    read() {
      const now = performance.now();
      if (now >= until) {
        kept = readFile(path);
        until = now + keepMs;
      }
      return kept;
    },
  };
}

function readFile(path: string): string {
  const where = `${path} (TENSORD_TOKEN_FILE)`;
  let text: string;
  try {
    text = readFileSync(path, "utf8").trim();
  } catch (cause) {
    const { code = "unknown" } = cause as NodeJS.ErrnoException;
    throw new TensordError("validation-failed", `Cannot read the token from ${where}: ${code}`, {
      hint: "let this process's user read it, or set TENSORD_TOKEN",
      cause,
    });
  }
  return check(text, where);
}

function check(text: string, where: string): string {
  if (text.length <= maxCharacters && form.test(text)) return text;
  throw new TensordError("validation-failed", `Cannot use the token of ${where}: it is none`, {
    hint: `want at most ${maxCharacters} of A-Z a-z 0-9 . _ ~ + / -, as the server's TENSORD_TOKENS_FILE has it`,
  });
}
