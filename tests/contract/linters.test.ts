/**
 * The committed documents before linters: Spectral and Redocly have nothing against them by their recommended rules but what
 * stands here, with the reason. An exception that is none any more fails too.
 */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createConfig, lint } from "@redocly/openapi-core";
import { Document, Spectral } from "@stoplight/spectral-core";
import { Yaml } from "@stoplight/spectral-parsers";
import { httpAndFileResolver } from "@stoplight/spectral-ref-resolver";
import { asyncapi, oas } from "@stoplight/spectral-rulesets";
import { parse } from "yaml";
import { root } from "../harness/instance-needs.ts";

/** Schemas that no operation refers to, and that clients have all the same. */
const forClients = {
  KnownEvents: "what `data` of each type of event carries; `CloudEvent` itself is open, for types of tomorrow",
  FailureCode: "the codes of today, for who wants them typed; `code` of a Problem is open",
  TensorReference: "clients tell it each other, and never the server",
};
const unused = Object.keys(forClients);

/** Whom to ask is who runs the server; the project has no address beside it. */
const contact = "info-contact at info";

/** Errors and warnings; what is above is advice. */
async function askSpectral(name: string): Promise<string[]> {
  const spectral = new Spectral({ resolver: httpAndFileResolver });
  spectral.setRuleset({
    extends: [
      [oas, "recommended"],
      [asyncapi, "recommended"],
    ],
    rules: {},
  } as never);
  const path = join(root, name);
  const results = await spectral.run(new Document(readFileSync(path, "utf8"), Yaml, path));
  return results.filter(({ severity }) => severity <= 1).map(({ code, path }) => `${code} at ${path.join(".")}`);
}

async function askRedocly(name: string): Promise<string[]> {
  const problems = await lint({
    ref: join(root, name),
    config: await createConfig({ extends: ["recommended"] }),
  });
  return problems.map(({ ruleId, location }) => `${ruleId} at ${location[0]?.pointer ?? ""}`);
}

describe("Spectral's recommended rules", () => {
  // What they say of the copy in 3.0 they say of the document, at twice the time.
  test("pass for openapi.yaml, but for the exceptions", async () => {
    const exceptions = unused.map((name) => `oas3-unused-component at components.schemas.${name}`);
    expect((await askSpectral("openapi.yaml")).toSorted()).toEqual([contact, ...exceptions].toSorted());
  });

  test("pass for asyncapi.yaml, but for the exceptions", async () => {
    expect(await askSpectral("asyncapi.yaml")).toEqual([contact.replace("info-", "asyncapi-info-")]);
  });
});

/**
 * Where 3.0 says of a reference that it may be null. To the letter `nullable` wants a `type` beside it; generators read it
 * as it stands, and progenitor reads no other form.
 */
function findNullableReferences(value: unknown, path: string): string[] {
  if (typeof value !== "object" || value === null) return [];
  const inside = Object.entries(value).flatMap(([key, item]) => findNullableReferences(item, `${path}/${key}`));
  return "nullable" in value && "allOf" in value ? [`struct at ${path}/nullable`, ...inside] : inside;
}

describe("Redocly's recommended rules", () => {
  const exceptions = unused.map((schema) => `no-unused-components at #/components/schemas/${schema}`);

  test("pass for openapi.yaml, but for the exceptions", async () => {
    expect((await askRedocly("openapi.yaml")).toSorted()).toEqual(exceptions.toSorted());
  });

  test("pass for openapi-3.0.yaml, but for the exceptions", async () => {
    const copy = parse(readFileSync(join(root, "openapi-3.0.yaml"), "utf8"));
    const nullables = findNullableReferences(copy.components, "#/components");
    expect(nullables.length).toBeGreaterThan(0);
    expect((await askRedocly("openapi-3.0.yaml")).toSorted()).toEqual([...exceptions, ...nullables].toSorted());
  });

  test("pass for asyncapi.yaml", async () => {
    expect(await askRedocly("asyncapi.yaml")).toEqual([]);
  });
});
