/** The OpenAPI document: the committed copy is the generated one, and each operation says what a client has to know. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { openApiPath, toOpenApiYaml } from "../../scripts/openapi.ts";
import { failures } from "../../src/memory/error.ts";
import { problemMediaType } from "../../src/routes/problem.ts";
import { checkSchema, declaredCodes, document, operations } from "../harness/answers.ts";
import { withApp } from "../harness/app.ts";
import { poolPath, withPools } from "./support/pools.ts";
import { withBody } from "./support/requests.ts";
import { claimPath, evict, openSession, takeLease } from "./support/sessions.ts";

/** JSON, and what streams or is no JSON by its nature. */
const answerTypes = [
  "application/json",
  "text/event-stream",
  "application/octet-stream",
  "text/plain",
  "application/openmetrics-text",
];

const problemContent = { [problemMediaType]: { schema: { $ref: "#/components/schemas/Problem" } } };

describe("the document", () => {
  test("is committed as it is generated, byte for byte", () => {
    expect(readFileSync(openApiPath, "utf8")).toBe(toOpenApiYaml());
  });

  test(
    "is served as it is generated",
    withApp(async (app) => {
      const { status, headers, body } = await app.request("GET", "/openapi.json");
      expect({ status, contentType: headers.get("content-type") }).toEqual({
        status: 200,
        contentType: "application/json",
      });
      expect(body).toEqual(JSON.parse(JSON.stringify(document)));
    }),
  );

  test("has no reference that leads nowhere, and no schema that nothing refers to but what it says is for clients", () => {
    const referred = [...JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name);
    // What clients tell each other, and the words and events that they know today.
    referred.push("TensorReference", "FailureCode", "KnownEvents");
    expect([...new Set(referred)].toSorted()).toEqual(Object.keys(document.components.schemas).toSorted());
  });

  test("has what linters ask of its root: nobody authenticates, and nothing is empty", () => {
    expect(document).toMatchObject({ security: [] });
    expect(document).not.toHaveProperty("webhooks");
  });

  test("names each operation once", () => {
    const ids = operations.map(({ operationId }) => operationId);
    expect(ids.length).toBeGreaterThan(15);
    expect(ids.filter((id, index) => ids.indexOf(id) !== index)).toEqual([]);
  });
});

describe("each operation", () => {
  for (const operation of operations) {
    const { operationId, summary, description, path, parameters = [], responses } = operation;

    test(`${operationId} says what it does in one line`, () => {
      expect(operationId).toMatch(/^[a-z][A-Za-z]+$/);
      expect(summary).toMatch(/^[A-Z].{5,100}[^.]$/);
    });

    test(`${operationId} says more in whole sentences`, () => {
      expect(description).toMatch(/^[A-Z`].{20,}\.$/s);
    });

    test(`${operationId} has a parameter for each segment that varies, and no other in its path`, () => {
      const inPath = parameters.filter((parameter) => parameter.in === "path");
      expect(inPath.map(({ name }) => `{${name}}`)).toEqual(path.match(/\{\w+\}/g) ?? []);
      expect(inPath.every(({ required }) => required === true)).toBeTrue();
      const others = parameters.filter((parameter) => parameter.in !== "path" && parameter.required === true);
      // Which claim is released is no part of the name that it is for.
      expect(others.map(({ name }) => name)).toEqual(operationId === "releaseClaim" ? ["claim"] : []);
    });

    test(`${operationId} declares a success and its failures, each under the status of the table`, () => {
      const statuses = Object.keys(responses);
      expect(statuses.filter((status) => status < "300")).not.toEqual([]);
      const { default: anyOther, ...declared } = responses;
      expect(anyOther?.content).toEqual(problemContent);
      for (const [status, { description, content = {} }] of Object.entries(declared)) {
        if (status < "300") {
          expect(Object.keys(content)).not.toEqual([]);
          for (const type of Object.keys(content)) expect(type).toBeOneOf(answerTypes);
          continue;
        }
        if (status === "304") {
          expect(content).toEqual({});
          continue;
        }
        expect(content).toEqual(problemContent);
        const codes = declaredCodes(description);
        expect(codes).not.toEqual([]);
        for (const code of codes) expect([code, String(failures[code].status)]).toEqual([code, status]);
      }
    });
  }

  for (const { operationId, requestBody } of withBody) {
    test(`${operationId} says whether it requires its body, and shows one that it accepts`, () => {
      expect(requestBody?.required).toBe(operationId !== "sealRegion");
      expect(Object.keys(requestBody?.content ?? {})).toEqual(["application/json"]);
      const name = requestBody?.content["application/json"]?.schema.$ref?.split("/").at(-1) ?? "";
      const { example } = document.components.schemas[name] as { example?: unknown };
      expect(example).toBeObject();
      checkSchema(name, example, `the example of ${operationId}`);
    });
  }

  test("with a body of bytes requires it, and says that it is binary", () => {
    const withAny = operations.filter(({ requestBody }) => requestBody !== undefined);
    const others = withAny.filter((operation) => !withBody.includes(operation));
    expect(others.map(({ operationId, requestBody }) => [operationId, requestBody])).toEqual([
      [
        "writeData",
        { required: true, content: { "application/octet-stream": { schema: { type: "string", format: "binary" } } } },
      ],
    ] as never);
  });

  test(
    "takes the example of its body",
    withApp(async (app) => {
      const exampleOf = (name: string) => document.components.schemas[name]?.example as object;
      const region = await app.create(exampleOf("CreateRegion") as Record<string, unknown>);
      await app.ok(200, "PATCH", `/v1/regions/${region.id}`, exampleOf("ChangeRegion"));
      await app.ok(200, "PATCH", `/v1/models/${region.model}/regions/${region.name}`, exampleOf("ChangeRegion"));
      await app.seal(region.id, exampleOf("SealRegion"));
      await app.ok(202, "POST", `/v1/regions/${region.id}/copy`, exampleOf("CopyRegion"));
      await app.ok(202, "POST", `/v1/models/${region.model}/load`, exampleOf("LoadModel"));
      await app.ok(201, "POST", "/v1/models", exampleOf("RegisterModel"));
      await app.ok(200, "PATCH", "/v1/models/llama-7b", exampleOf("ChangeModel"));
      const { model, names } = exampleOf("OpenGroup") as { model: string; names: string[] };
      const members: object[] = [];
      for (const name of names) members.push({ region: (await app.create({ model, name })).id });
      await app.ok(200, "POST", "/v1/seal", { ...exampleOf("SealGroup"), regions: members });
      await app.ok(200, "POST", "/v1/open", exampleOf("OpenGroup"));
      const session = await openSession(app, exampleOf("OpenSession"));
      await app.ok(200, "POST", claimPath, { ...exampleOf("ClaimRequest"), session: session.id });
      await takeLease(app, region.id, exampleOf("TakeLease"));
      await evict(app, exampleOf("EvictRequest"));
      await app.ok(201, "PUT", poolPath(), exampleOf("CreateElasticPool"));
      await app.ok(200, "PATCH", poolPath(), exampleOf("ChangeElasticPool"));
      await app.ok(200, "POST", `${poolPath()}/map`, exampleOf("MapPages"));
      await app.ok(202, "POST", `${poolPath()}/unmap`, exampleOf("UnmapPages"));
      const regions = [
        "createRegion",
        "changeRegion",
        "changeRegionByName",
        "sealRegion",
        "sealGroup",
        "openGroup",
        "adviseRegion",
        "copyRegion",
        "loadModel",
        "registerModel",
        "changeModel",
      ];
      const pools = ["createElasticPool", "changeElasticPool", "mapPages", "unmapPages"];
      expect(withBody.map(({ operationId }) => operationId).toSorted()).toEqual(
        [...regions, ...pools, "openSession", "claimName", "takeLease", "evict"].toSorted(),
      );
    }, withPools),
  );
});

describe("holding an answer against the document", () => {
  const whole = { state: "deleted", freed_bytes: 4096 };
  const cases: readonly (readonly [what: string, value: unknown])[] = [
    ["a missing member", { state: "deleted" }],
    ["a member that the schema does not name", { ...whole, extra: 1 }],
    ["a value of another type", { ...whole, freed_bytes: "4096" }],
    ["a word that is none of the schema's", { ...whole, state: "gone" }],
    ["half a byte", { ...whole, freed_bytes: 0.5 }],
  ];

  test("accepts what fits", () => {
    expect(() => checkSchema("Deletion", whole, "it")).not.toThrow();
  });

  for (const [what, value] of cases) {
    test(`refuses ${what}`, () => {
      expect(() => checkSchema("Deletion", value, "it")).toThrow("it is no Deletion");
    });
  }

  test("refuses an open word that is not documented, though a client may read it", () => {
    const checksum = { algorithm: "xxh3-64-tree", chunk_bytes: 1, value: "" };
    expect(() => checkSchema("Checksum", checksum, "it")).not.toThrow();
    expect(() => checkSchema("Checksum", { ...checksum, algorithm: "sha256" }, "it")).toThrow("it is no Checksum");
  });
});

describe("a word", () => {
  const schemas = Object.entries(document.components.schemas);
  const requests = new Set(["FailureCode"]);
  const addRequest = (schema: unknown) => {
    for (const [, name = ""] of JSON.stringify(schema).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (requests.has(name)) continue;
      requests.add(name);
      addRequest(document.components.schemas[name]);
    }
  };
  for (const { requestBody } of withBody) addRequest(requestBody);
  /** Every `enum` inside, as the path of its member. */
  const findEnums = (value: unknown, path: string): string[] => {
    if (typeof value !== "object" || value === null) return [];
    const inside = Object.entries(value).flatMap(([key, item]) =>
      findEnums(
        item,
        ["properties", "items", "allOf", "anyOf"].includes(key) || /^\d+$/.test(key) ? path : `${path}.${key}`,
      ),
    );
    return "enum" in value ? [path, ...inside] : inside;
  };

  test("of answers may grow, but for those whose growth would be another protocol", () => {
    const closed = schemas.filter(([name]) => !requests.has(name)).flatMap(([name, schema]) => findEnums(schema, name));
    expect(closed.toSorted()).toEqual([
      "Capabilities.api",
      "ClaimAnswer.role",
      "CloudEvent.datacontenttype",
      "CloudEvent.specversion",
      "Deletion.state",
      "Ended.state",
      "PoolDeletion.state",
      "Probe.status",
      "RegionState",
      "SessionEnd.state",
    ]);
  });

  test("of a request may not, and no answer shares its schema", () => {
    const open = schemas.filter(
      ([name, schema]) => requests.has(name) && JSON.stringify(schema).includes('"examples"'),
    );
    expect(open.map(([name]) => name)).toEqual([]);
    const answers = schemas.filter(([name]) => !requests.has(name)).map(([, schema]) => JSON.stringify(schema));
    const shared = [...requests].filter((name) =>
      answers.some((text) => text.includes(`"#/components/schemas/${name}"`)),
    );
    expect(shared).toEqual([]);
  });
});
