/** Regions of loaded files come back without the store: a safetensors file with its tensors, of any other all its bytes. */

import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { ModelFolder } from "../harness/load.ts";
import { npyFile, npyHeader } from "../harness/model-files.ts";
import { startServer } from "../harness/server.ts";
import { forgetStore } from "./lost-store-regions.ts";

afterAll(assertNothingLeft);

testWith()("loaded files are back without the store, and are loaded again as they were", async () => {
  using folder = new ModelFolder();
  const paths = [
    folder.writeTensor("tensors.safetensors", Buffer.alloc(1000, 3)),
    folder.write("array.npy", npyFile(npyHeader("'<f4'", "(3,)"), Buffer.alloc(12, 1))),
  ];
  const mapped = folder.writeTensor("mapped.safetensors", Buffer.alloc(10, 4));
  await using server = await startServer({ env: { TENSORD_MODEL_ROOTS: folder.path } });
  const loadAll = async () => {
    const { status, stderr } = await server.command("load", ...paths);
    expect([status, stderr]).toEqual([0, ""]);
    const mapping = await server.command("load", mapped, "--mode", "map");
    expect([mapping.status, mapping.stderr]).toEqual([0, ""]);
    return await Promise.all(["tensors", "array", "mapped"].map((name) => server.api.findByName(name)));
  };
  const [tensors, array, file] = await loadAll();
  await server.kill("SIGKILL");
  forgetStore(server);
  server.log.expect(/^tensord\.region\.relinked$/);
  server.log.expect(/kept as plain bytes/);
  server.log.expect(/journal|adopted/);
  await server.start();
  const back = await Promise.all([tensors, array].map((region) => server.api.get(region?.id ?? "")));
  expect(back).toMatchObject([
    { name: "tensors", version: tensors?.version, state: "sealed", tensors: tensors?.tensors },
    { name: "array", version: array?.version, state: "sealed", tensors: [{ name: "data", dtype: "U8" }] },
  ]);
  for (const [index, { storage }] of back.entries()) {
    expect(readFileSync(storage.path).equals(readFileSync(paths[index] ?? ""))).toBeTrue();
  }
  expect(await server.api.get(file?.id ?? "")).toMatchObject({
    ...{ name: "mapped", version: file?.version, state: "sealed", tensors: file?.tensors },
    storage: { kind: "file", path: mapped, changed: null },
  });
  const [again, rebuilt, pointed] = await loadAll();
  expect(pointed?.id).toBe(file?.id ?? "");
  expect(again?.id).toBe(tensors?.id ?? "");
  expect(rebuilt).toMatchObject({ version: array?.version, tensors: array?.tensors });
});
