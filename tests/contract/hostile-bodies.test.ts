/** Every file under tests/hostile/bodies is refused, for the reason that its README gives, and leaves nothing behind. */

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { FailureCode } from "../../src/memory/error.ts";
import { withApp } from "../harness/app.ts";
import { goodRequest, optionsFor, withBody } from "./support/requests.ts";

const folder = join(import.meta.dirname, "../hostile");
const files = readdirSync(join(folder, "bodies")).toSorted();
const readme = readFileSync(join(folder, "README.md"), "utf8");
const rows = [...readme.matchAll(/^\| `((\w+)\.[\w-]+\.json)` \| .+ \| `([a-z-]+)` \| `(.+)` \|$/gm)];

/** No mistake for another operation that takes the same body: whoever has a name may persist. */
const exempt = "changeRegion.persist-nameless.json";

const schemas = new Map(
  withBody.map(({ operationId, requestBody }) => [operationId, requestBody?.content["application/json"]?.schema.$ref]),
);

/** The operation that the file is named after, and the others that take the same body. */
function operationsOf(file: string, operationId: string): readonly string[] {
  const others = file === exempt ? [] : [...schemas.keys()].filter((other) => other !== operationId);
  return [operationId, ...others.filter((other) => schemas.get(other) === schemas.get(operationId))];
}

describe("hostile bodies", () => {
  test("the README names every file, and no other", () => {
    expect(rows.map(([, file]) => file).toSorted()).toEqual(files);
    expect(files.length).toBeGreaterThan(100);
  });

  for (const [, file = "", named = "", code, words = ""] of rows) {
    for (const operationId of operationsOf(file, named)) {
      test(
        `${operationId} refuses ${file}: ${words}`,
        withApp(async (app) => {
          const { method, path } = await goodRequest(app, operationId);
          const body = readFileSync(join(folder, "bodies", file), "utf8");
          const problem = await app.refused(code as FailureCode, method, path, body);
          expect(problem.detail).toContain(words);
        }, optionsFor(operationId)),
      );
    }
  }
});
