/**
 * What a server process writes: its JSON lines as they come, and a check that nothing bad is among them unexpected, and that
 * each is one that any reader of JSON takes for the same.
 */

import { isSnakeCase } from "./spelling.ts";

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [key: string]: unknown;
}

const warnLevel = 40;

/** Warnings that every server may write, because of what the tests do and not of what it is. */
const harmless = [
  /^every local user can reach /,
  /^tensord\.pool\.pressure$/,
  // Of small file systems, which tests mount and fill.
  /^\S+ has \S+ \S+ in all/,
  / of the file system are free /,
];

export class ServerLog {
  readonly lines: LogLine[] = [];
  #expected: readonly RegExp[] = harmless;
  /** What is wrong with lines, whatever they say. */
  readonly #faults: string[] = [];
  /** Standard error, whole. */
  errors = "";
  #rest = "";

  /** Reads both streams to their ends. A line that a SIGKILL tore stays in the rest. */
  async read(stdout: ReadableStream<Uint8Array>, stderr: ReadableStream<Uint8Array>): Promise<void> {
    this.#rest = "";
    await Promise.all([this.#readLines(stdout), this.#readErrors(stderr)]);
  }

  async #readLines(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const texts = (this.#rest + decoder.decode(chunk, { stream: true })).split("\n");
      this.#rest = texts.pop() ?? "";
      for (const text of texts) {
        this.lines.push(parseLine(text));
        this.#faults.push(...findFaults(text).map((fault) => `${fault}: ${text}`));
      }
    }
  }

  async #readErrors(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) this.errors += decoder.decode(chunk, { stream: true });
  }

  /** The first line whose message matches. */
  find(pattern: RegExp): LogLine | undefined {
    return this.lines.find(({ msg }) => pattern.test(msg));
  }

  /** Lets warnings and errors pass whose message matches. */
  expect(...patterns: RegExp[]): void {
    this.#expected = [...this.#expected, ...patterns];
  }

  /** For a test that goes on with the server of another: what was said so far was that one's, and so was what it let pass. */
  turnPage(): void {
    this.assertQuiet();
    this.lines.length = 0;
    this.#expected = harmless;
  }

  /** @throws Error with every warning, error and word on standard error that nobody expected. */
  assertQuiet(): void {
    const loud = this.lines.filter(
      ({ level, msg }) => level >= warnLevel && !this.#expected.some((pattern) => pattern.test(msg)),
    );
    const unexpected = [
      ...loud.map((line) => JSON.stringify(line)),
      ...this.#faults,
      ...(this.errors === "" ? [] : [this.errors]),
    ];
    if (unexpected.length > 0) throw new Error(`the server wrote what nobody expected:\n${unexpected.join("\n")}`);
  }

  toString(): string {
    return [...this.lines.slice(-30).map((line) => JSON.stringify(line)), this.#rest, this.errors].join("\n");
  }
}

function parseLine(text: string): LogLine {
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    // Not one of the log's own lines, so certainly one to look at.
    return { level: 60, msg: text };
  }
}

/** Keys of a line that are there twice, so that readers see one or the other, or are not in snake_case. */
export function findFaults(text: string): string[] {
  try {
    const line: unknown = JSON.parse(text, (key, value) => {
      // Elements of an array come by their numbers, and the line itself under no name.
      if (!/^\d*$/.test(key) && !isSnakeCase(key)) throw new SyntaxError(`${key} is not in snake_case`);
      return value;
    });
    // Of a key that is there twice, the parser keeps one.
    return JSON.stringify(line) === text ? [] : ["a key is there twice"];
  } catch (error) {
    return [(error as Error).message];
  }
}
