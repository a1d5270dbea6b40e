/** Regions of many tensors: asked for in megabytes, listed in a file of their own, and each found by its name. */

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { tensorMembers } from "../../src/memory/layout/asked-text.ts";
import { limits } from "../../src/memory/limits.ts";
import { toFileBytes } from "../../src/memory/storage/tensor-files.ts";
import { TensorRequest } from "../../src/routes/schemas/requests.ts";
import { hostOf } from "../../src/server/cli/pools.ts";
import type { Region } from "../harness/answers.ts";
import { type TestApp, toCharge, withApp } from "../harness/app.ts";
import { until } from "../harness/server-wait.ts";

const hour = 3_600_000;
const toName = (index: number) => `model.layers.${index % 90}.mlp.experts.${index}.gate_proj.weight`;
const toTensors = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ name: toName(index), dtype: "F16", shape: [4, 1] }));

function listFiles({ shmDirectory, instance }: TestApp): string[] {
  const folder = `${shmDirectory}/tensord.${instance}/store/tensors`;
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** The bytes of one tensor over HTTP. */
async function readTensor(app: TestApp, id: string, name: string): Promise<Response> {
  const query = new URLSearchParams({ tensor: name });
  return await app.app.fetch(new Request(`http://localhost/v1/regions/${id}/data?${query}`), {});
}

describe("a region of 100,000 tensors", () => {
  test(
    "is made, listed, found by name, sealed and deleted like any other",
    withApp(async (app) => {
      const asked = toTensors(100_000);
      const made = await app.ok<Region>(201, "POST", "/v1/regions", { tensors: asked, name: "many", ttl_ms: hour });
      expect(made.tensor_count).toBe(100_000);
      expect(made.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(asked as never);
      const end = made.storage.byte_size;
      expect(new Set(made.tensors.map(({ byte_offset }) => byte_offset))).toHaveLength(100_000);
      expect(Math.max(...made.tensors.map(({ byte_offset }) => byte_offset))).toBe(end - 8);

      const last = made.tensors.at(-1);
      const written = await app.app.fetch(
        new Request(`http://localhost/v1/regions/${made.id}/data?tensor=${last?.name}`, {
          method: "PUT",
          body: "the last",
        }),
        {},
      );
      expect(written.status).toBe(200);
      expect(await (await readTensor(app, made.id, last?.name ?? "")).text()).toBe("the last");
      expect((await (await readTensor(app, made.id, toName(0))).arrayBuffer()).byteLength).toBe(8);
      expect((await readTensor(app, made.id, "model")).status).toBe(404);

      const sealed = await app.ok<Region>(200, "POST", `/v1/regions/${made.id}/seal`, {});
      expect(sealed.tensors).toEqual(made.tensors);
      expect((await app.get(made.id)).tensors).toEqual(made.tensors);
      const list = app.store.books.region(made.id).tensors;
      // Its list is memory as well, and whoever makes the region is charged for it.
      expect(hostOf(await app.stats()).used_bytes).toBe(toCharge(end) + toFileBytes(list));
      expect(listFiles(app)).toHaveLength(1);
      expect(await app.remove(made.id)).toMatchObject({ state: "deleted" });
      expect(hostOf(await app.stats()).used_bytes).toBe(0);
      await until("the list's file is gone", () => listFiles(app).length === 0);
    }),
  );
});

describe("many tensors", () => {
  test(
    "are attached to if they agree with what is asked for, and only then",
    withApp(async (app) => {
      const attach = { name: "many", ttl_ms: hour, if_exists: "attach" };
      const tensors = toTensors(1000);
      const made = await app.ok<Region>(201, "POST", "/v1/regions", { ...attach, tensors });
      const found = await app.ok<Region>(200, "POST", "/v1/regions", { ...attach, tensors: tensors.toReversed() });
      expect(found).toMatchObject({ id: made.id, tensor_count: 1000 });
      const different = { name: toName(7), dtype: "F32", shape: [4, 1] };
      const problem = await app.refused("name-taken", "POST", "/v1/regions", {
        ...attach,
        tensors: tensors.with(7, different) as never,
      });
      expect(problem.difference).toEqual({
        missing: [],
        unexpected: [],
        different: [
          { name: toName(7), asked: { dtype: "F32", shape: [4, 1] }, existing: { dtype: "F16", shape: [4, 1] } },
        ],
      });
      // Few that are asked for, of a name that has many; and many, of a name that has few.
      const few = await app.refused("name-taken", "POST", "/v1/regions", {
        ...attach,
        tensors: [{ ...different, name: "w" }],
      });
      expect(few.difference).toMatchObject({ missing: ["w"], different: [] });
      await app.ok(201, "POST", "/v1/regions", { ...attach, name: "few", byte_size: 4 });
      const many = await app.refused("name-taken", "POST", "/v1/regions", { ...attach, name: "few", tensors });
      expect(many.difference).toMatchObject({ unexpected: ["data"], different: [] });
    }),
  );

  test(
    "are listed with their aliases, which are found by name like any other",
    withApp(async (app) => {
      const alias = { name: "tied", dtype: "F16", shape: [2], alias_of: toName(500), alias_byte_offset: 4 };
      const tensors = [...toTensors(1000), alias] as never;
      const made = await app.create({ tensors });
      const tied = made.tensors.at(-1);
      expect(tied).toMatchObject({ name: "tied", alias_of: toName(500), byte_size: 4 });
      expect(tied?.byte_offset).toBe((made.tensors[500]?.byte_offset ?? 0) + 4);
      expect((await (await readTensor(app, made.id, "tied")).arrayBuffer()).byteLength).toBe(4);
      const lost = { ...alias, alias_of: "nobody" };
      await app.refused("validation-failed", "POST", "/v1/regions", {
        tensors: [...toTensors(1000), lost],
        ttl_ms: hour,
      });
    }),
  );

  test(
    "leave no list behind where their creation fails",
    withApp(async (app) => {
      const tensors = toTensors(1000);
      await app.refused("model-not-found", "POST", "/v1/regions", { model: "none", tensors, ttl_ms: hour });
      await app.ok(201, "POST", "/v1/models", { name: "small", memory_limit_bytes: 64 * 1024 });
      await app.refused("model-limit-exceeded", "POST", "/v1/regions", { model: "small", tensors, ttl_ms: hour });
      await app.refused("owner-required", "POST", "/v1/regions", { tensors });
      await app.refused("validation-failed", "POST", "/v1/regions", { tensors, byte_size: 1, ttl_ms: hour });
      expect(listFiles(app)).toEqual([]);
    }),
  );

  test(
    "are refused with the first mistakes, each by its place, and their number",
    withApp(async (app) => {
      const wrong = [
        { tensor: { dtype: "U8", shape: [1] }, path: "name" },
        { tensor: { name: "", dtype: "U8", shape: [1] }, path: "name" },
        { tensor: { name: "a", dtype: "toString", shape: [1] }, path: "dtype" },
        { tensor: { name: "b", dtype: "U8", shape: "1" }, path: "shape" },
        { tensor: { name: "c", dtype: "U8", shape: [1, -1] }, path: "shape.1" },
        { tensor: { name: "d", dtype: "U8", shape: [0.5] }, path: "shape.0" },
        { tensor: { name: "e", dtype: "U8", shape: Array(65).fill(1) }, path: "shape" },
        { tensor: { name: "f", dtype: "U8", shape: [1], more: 1 }, path: "" },
        { tensor: { name: "g", dtype: "U8", shape: [1], alias_of: "" }, path: "alias_of" },
        {
          tensor: { name: "h", dtype: "U8", shape: [1], alias_of: "a", alias_byte_offset: -1 },
          path: "alias_byte_offset",
        },
        { tensor: [], path: "" },
        { tensor: null, path: "" },
      ];
      const rest = toTensors(1000);
      for (const tensors of [wrong.map(({ tensor }) => tensor), [...wrong.map(({ tensor }) => tensor), ...rest]]) {
        // Few are read by the schema, many by a Worker: what is wrong with them is the same.
        const problem = await app.refused("validation-failed", "POST", "/v1/regions", { tensors, ttl_ms: hour });
        const paths = (problem.issues as { path: string }[]).map(({ path }) => path);
        expect(paths).toEqual(wrong.map(({ path }, index) => `tensors.${index}${path === "" ? "" : `.${path}`}`));
      }
      const all = Array(1000).fill({ name: "", dtype: "U8", shape: [1] });
      const many = await app.refused("validation-failed", "POST", "/v1/regions", {
        tensors: all,
        ttl_ms: hour,
        "-": "-".repeat(limits.inlineBodyBytes),
      });
      expect(many.detail).toContain("999 more");
      expect(many.issues).toHaveLength(limits.validationIssues);
      const twice = await app.refused("validation-failed", "POST", "/v1/regions", {
        tensors: [...rest, rest[0]],
        ttl_ms: hour,
      });
      expect(twice.detail).toContain("occurs twice");
    }),
  );

  test("may say what the schema of a tensor says", () => {
    expect<string[]>([...tensorMembers]).toEqual(Object.keys(TensorRequest.shape));
  });
});
