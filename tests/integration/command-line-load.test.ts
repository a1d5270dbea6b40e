/** `tensord load` against a real server: what it makes and prints, and what it says of files that cannot be loaded. */

import { afterAll, expect, test } from "bun:test";
import { chmodSync, readFileSync } from "node:fs";
import type { Operation } from "../../src/server/cli/answers.ts";
import { toProgress } from "../../src/server/cli/operation-text.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsReadableCheckout, needsRoot, testWith } from "../harness/instance-needs.ts";
import { ModelFolder, modelFolder, tinyPath } from "../harness/load.ts";
import { asUser, startServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";

afterAll(assertNothingLeft);

test("a bar says that the file is being opened until its size is known", () => {
  const operation = { kind: "load", state: "running", done_bytes: 0, total_bytes: 0 } as Operation;
  expect(toProgress(operation)).toBe("opening the file");
  expect(toProgress({ ...operation, total_bytes: 8 })).toContain("0 %");
});

testWith()("load makes sealed regions that stay until room is needed, and the same ones again", async () => {
  using folder = new ModelFolder();
  const roots = `${modelFolder},${folder.path}`;
  await using server = await startServer({ env: { TENSORD_MODEL_ROOTS: roots } });
  const other = folder.writeTensor("other.safetensors", Buffer.alloc(100_000, 1));
  const { stdout, status } = await server.command("load", tinyPath, other);
  expect(status).toBe(0);
  const tiny = await server.api.findByName("tiny");
  expect(stdout).toStartWith(`loaded ${tinyPath} to default/tiny, sealed, 2 tensors, `);
  expect(stdout).toContain(`\nloaded ${other} to default/other, sealed, 1 tensor, `);
  expect(stdout).toContain(`\n  path     ${tiny?.storage.path}\n`);
  expect(tiny).toMatchObject({ state: "sealed", evictable: true, owner: { kind: "persist" } });
  expect(readFileSync(tiny?.storage.path ?? "").equals(readFileSync(tinyPath))).toBeTrue();

  const { stdout: listed } = await server.command("ls");
  expect(listed).toMatch(/^REGION .* USED +FILE$/m);
  expect(listed).toMatch(new RegExp(`^${tiny?.id} .* ${tinyPath}$`, "m"));
  const { stdout: found } = await server.command("ls", "--label", `tensord.file=${other}`, "--json");
  expect(JSON.parse(found)).toMatchObject([{ name: "other" }]);

  await server.api.call("POST", `/v1/regions/${tiny?.id}/leases`, { ttl_ms: 600_000 });
  const files = [other, tinyPath].toSorted();
  const { stdout: models } = await server.command("ls", "--models");
  expect(models).toMatch(/^MODEL +REGIONS +SIZE +USED +WORKERS +FILES$/m);
  expect(models).toMatch(new RegExp(`^default +2 .* 1 +${files.join(", ")}$`, "m"));
  const { stdout: one } = await server.command("ls", "--models", "--model", "default", "--json");
  expect(JSON.parse(one)).toMatchObject([{ name: "default", workers: 1, files }]);

  const again = JSON.parse((await server.command("load", tinyPath, "--ttl", "1h", "--json")).stdout) as Operation[];
  expect(again).toMatchObject([{ kind: "load", state: "succeeded", source: tinyPath, region: tiny?.id }]);
  await server.command("load", tinyPath, "--name", "mine", "--as", "v1", "--raw", "--ttl", "1h");
  expect(await server.api.findByName("mine")).toMatchObject({ version: "v1", storage: { format: "raw" } });
  expect((await server.command("operations")).stdout).toContain(` load `);
});

testWith()("load says of each file why it cannot be loaded, and what to do", async () => {
  using folder = new ModelFolder();
  await using server = await startServer({ env: { TENSORD_MODEL_ROOTS: folder.path } });
  const load = async (...args: string[]) => {
    const { status, stderr } = await server.command("load", ...args);
    return [status, ...stderr.trimEnd().split("\n")];
  };
  const pickle = folder.write("model.pt", Buffer.from("\x80\x04K.", "latin1"));
  expect(await load(pickle)).toEqual([
    1,
    expect.stringContaining(`tensord: Cannot load "${pickle}": it is a pickle, which is a program and no data`),
    expect.stringContaining("safetensors.torch.save_file"),
  ]);
  expect(await load(tinyPath)).toEqual([
    1,
    `tensord: Cannot load "${tinyPath}": it is below none of ${folder.path}`,
    expect.stringContaining("TENSORD_MODEL_ROOTS"),
  ]);
  expect(await load("a", "b", "--name", "c")).toEqual([
    1,
    "tensord: Cannot load 2 files as c: want one file with --name",
    expect.stringContaining("Leave --name out"),
  ]);
  expect(await server.api.list()).toEqual([]);
});

testWith(needsRoot, needsReadableCheckout())(
  "whoever may load has the server read a file below a root that his own user may not",
  async () => {
    using folder = new ModelFolder();
    const env = { TENSORD_MODEL_ROOTS: folder.path, TENSORD_PORT: "0" };
    await using server = await startServer({ env });
    const secret = folder.writeTensor("secret.safetensors", Buffer.alloc(10));
    chmodSync(secret, 0o600);
    const url = await server.readUrl();
    const { status, stderr } = await runTensord(["load", secret, "--url", url], {}, asUser(65_534));
    expect([status, stderr]).toEqual([0, ""]);
    expect(await server.api.findByName("secret")).toMatchObject({ state: "sealed" });
  },
);
