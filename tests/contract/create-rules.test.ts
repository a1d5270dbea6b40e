/** Rules over several fields, which the document says as schema: exactly one owner, exactly one size. They are held against what the server takes. */

import { expect, test } from "bun:test";
import { generated } from "../../scripts/openapi.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { openSession } from "./support/sessions.ts";

interface Rule {
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, { readonly const: unknown }>>;
  readonly dependentRequired?: Readonly<Record<string, readonly string[]>>;
  readonly allOf?: readonly Rule[];
  readonly anyOf?: readonly Rule[];
  readonly oneOf?: readonly Rule[];
  readonly not?: Rule;
}

type Body = Readonly<Record<string, unknown>>;

/** What JSON Schema says of an object, as far as the rules have its words. */
function holds(rule: Rule, body: Body): boolean {
  const { required = [], properties = {}, dependentRequired = {}, allOf = [], anyOf, oneOf, not, ...unknown } = rule;
  expect(unknown).toEqual({});
  const has = (name: string) => name in body;
  return (
    required.every(has) &&
    Object.entries(properties).every(([name, { const: only }]) => !has(name) || body[name] === only) &&
    Object.entries(dependentRequired).every(([name, others]) => !has(name) || others.every(has)) &&
    allOf.every((each) => holds(each, body)) &&
    (anyOf === undefined || anyOf.some((each) => holds(each, body))) &&
    (oneOf === undefined || oneOf.filter((each) => holds(each, body)).length === 1) &&
    (not === undefined || !holds(not, body))
  );
}

function ruleOf(name: string): Rule {
  const schemas = generated().components?.schemas as Record<string, { if?: Rule; else?: unknown }>;
  const { if: rule, else: otherwise } = schemas[name] ?? {};
  if (rule === undefined) throw new Error(`${name} has no rule`);
  // What does not hold meets nothing.
  expect(otherwise).toEqual({ not: {} });
  return rule;
}

/** Every choice of one value, or none, for each field. */
function choose(fields: Readonly<Record<string, readonly unknown[]>>): Body[] {
  return Object.entries(fields).reduce<Body[]>(
    (bodies, [name, values]) =>
      bodies.flatMap((body) => [body, ...values.map((value) => ({ ...body, [name]: value }))]),
    [{}],
  );
}

const owners = { ttl_ms: [3_600_000], linger_ms: [3_600_000], handoff_ms: [1000], persist: [true, false] };

async function refusedOf(app: TestApp, method: string, path: string, body: Body): Promise<boolean> {
  const answer = await app.request(method, path, body);
  // Taken, but for a name that another choice has by now.
  expect([200, 201, 409, 422]).toContain(answer.status);
  return answer.status === 422;
}

test(
  "a creation that the document's rules allow is taken, and one that they do not is refused",
  withApp(async (app) => {
    const rule = ruleOf("CreateRegion");
    const { id: session } = await openSession(app);
    const sizes = { byte_size: [64], tensors: [[{ name: "w", dtype: "U8", shape: [64] }]] };
    const bodies = choose({ ...owners, session: [session], ...sizes, name: ["weights"] });
    const wrong = [];
    for (const body of bodies) {
      const isRefused = await refusedOf(app, "POST", "/v1/regions", {
        ...body,
        ...(body.name ? { if_exists: "attach" } : {}),
      });
      if (isRefused === holds(rule, body)) wrong.push(body);
    }
    expect(wrong).toEqual([]);
    expect(bodies.filter((body) => holds(rule, body)).length).toBeGreaterThan(10);
  }),
);

test(
  "and so is a change",
  withApp(async (app) => {
    const rule = ruleOf("ChangeRegion");
    const { id } = await app.create({ name: "weights" });
    const wrong = [];
    for (const body of choose(owners)) {
      const isRefused = await refusedOf(app, "PATCH", `/v1/regions/${id}`, body);
      if (isRefused === holds(rule, body)) wrong.push(body);
    }
    expect(wrong).toEqual([]);
  }),
);

test(
  "owners too many are all named, in one order",
  withApp(async (app) => {
    const several: readonly (readonly [Body, string])[] = [
      [{ persist: true, ttl_ms: 1000 }, '"ttl_ms" and "persist" are there'],
      [{ linger_ms: 0, ttl_ms: 1000, persist: false }, '"ttl_ms" and "linger_ms" are there'],
      [
        { persist: true, linger_ms: 0, ttl_ms: 1000, session: (await openSession(app)).id },
        '"session" and "ttl_ms" and "linger_ms" and "persist" are there',
      ],
    ];
    for (const [owners, names] of several) {
      const body = { name: "w", byte_size: 1, ...owners };
      const { detail } = await app.refused("validation-failed", "POST", "/v1/regions", body);
      expect(detail).toBe(`Cannot choose the owner: ${names}, want one of them`);
    }
  }),
);
