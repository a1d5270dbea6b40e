/**
 * Every file under tests/hostile/requests is answered as it says, by a real server over a real socket, and as the document has
 * it. What fuzzing finds becomes one of them.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { checkAnswer, toAnswer } from "../harness/answers.ts";
import { root } from "../harness/instance-needs.ts";
import { startServer, type TestServer } from "../harness/server.ts";

interface Step {
  /** Method and path; `{word}` is what a step before has kept. */
  readonly request: readonly [string, string];
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly text?: string;
  readonly status: number;
  /** Of the problem that it must be. */
  readonly code?: string;
  /** What the body must be, as text. */
  readonly answer?: string;
  /** Keeps the answer's `id` under this word. */
  readonly keep?: string;
}

interface Case {
  /** What it tries, and what came of it once. */
  readonly tries: string;
  readonly steps: readonly Step[];
}

const folder = join(root, "tests/hostile/requests");
const files = readdirSync(folder).toSorted();

let server: TestServer;

beforeAll(async () => {
  server = await startServer();
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
});

async function take(step: Step, kept: Map<string, string>): Promise<void> {
  const [method, template] = step.request;
  const path = template.replace(/\{(\w+)\}/g, (_, word: string) => kept.get(word) ?? word);
  const type = step.json === undefined ? "application/octet-stream" : "application/json";
  const body = step.json === undefined ? step.text : JSON.stringify(step.json);
  const response = await fetch(`http://localhost${path}`, {
    ...{ method, unix: server.instance.socket },
    headers: { ...(body !== undefined && { "content-type": type }), ...step.headers },
    ...(body !== undefined && { body }),
  });
  const answer = await toAnswer(response);
  const told = answer.body as { readonly id?: string; readonly code?: string };
  const where = `${method} ${path}: ${JSON.stringify(told)}`;
  expect({ status: answer.status, code: told?.code }, where).toEqual({ status: step.status, code: step.code });
  checkAnswer(method, path, answer);
  if (step.answer !== undefined) expect(answer.body, where).toBe(step.answer);
  if (step.keep !== undefined) kept.set(step.keep, told.id ?? "");
}

describe("hostile requests", () => {
  for (const file of files) {
    const { tries, steps } = JSON.parse(readFileSync(join(folder, file), "utf8")) as Case;

    test(`${file}: ${tries}`, async () => {
      const kept = new Map<string, string>();
      for (const step of steps) await take(step, kept);
      for (const id of kept.values()) await server.api.delete(id);
    });
  }

  test("the server answers still, and has nothing left of them", async () => {
    expect(await server.api.list()).toEqual([]);
    server.log.assertQuiet();
  });
});
