/**
 * Settings from a file, for those who mount one: a YAML mapping whose keys are the flags without their dashes. What is in it means what the
 * flag means.
 */

import { readFileSync } from "node:fs";
import { TensordError } from "../memory/error.ts";
import { type SettingName, settings } from "./config.ts";

/** Far longer than every setting together. */
const longestBytes = 64 * 1024;

export interface SettingsFile {
  readonly path: string;
  /** The settings that stand in it, as texts. */
  readonly texts: Readonly<Partial<Record<SettingName, string>>>;
}

const names = new Map(
  (Object.keys(settings) as SettingName[]).map((name) => [settings[name].flag.slice(2), name] as const),
);

const hint = "docs/operating.md says what may stand in it.";

/** @throws TensordError `validation-failed` with all mistakes at once; `io-error` if it cannot be read. */
export function readSettingsFile(path: string): SettingsFile {
  const content = parse(path, read(path));
  const mistakes: string[] = [];
  const texts: Partial<Record<SettingName, string>> = {};
  for (const [key, value] of Object.entries(content)) {
    const name = names.get(key);
    const text = toText(value);
    if (name === undefined) mistakes.push(`${key} is no setting; want some of ${[...names.keys()].join(", ")}`);
    else if (text === undefined)
      mistakes.push(`${key} is ${JSON.stringify(value).slice(0, 120)}, want a text, a number or a list of texts`);
    else texts[name] = text;
  }
  if (mistakes.length === 0) return { path, texts };
  throw new TensordError("validation-failed", `Cannot use the settings of ${path}: ${mistakes.join("; ")}`, { hint });
}

function read(path: string): string {
  try {
    const text = readFileSync(path, "utf8");
    if (text.length <= longestBytes) return text;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TensordError("io-error", `Cannot read the settings of ${path}: ${reason}`, { cause: error, hint });
  }
  throw new TensordError(
    "validation-failed",
    `Cannot use the settings of ${path}: it is longer than ${longestBytes} bytes`,
    { hint },
  );
}

function parse(path: string, text: string): object {
  let content: unknown;
  try {
    content = Bun.YAML.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TensordError("validation-failed", `Cannot use the settings of ${path}: ${reason}`, {
      cause: error,
      hint,
    });
  }
  // A file of comments alone sets nothing.
  if (content === null || content === undefined) return {};
  if (typeof content === "object" && !Array.isArray(content)) return content;
  throw new TensordError("validation-failed", `Cannot use the settings of ${path}: want lines such as "port: 7411"`, {
    hint,
  });
}

/** What the flag would be given, or undefined where that is for nobody to guess. */
function toText(value: unknown): string | undefined {
  if (value === null) return "";
  if (typeof value === "string" || typeof value === "number") return String(value);
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value.join(",");
  return undefined;
}
