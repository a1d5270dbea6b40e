/** `tensord load --mode` and what else the command line says of files that are mapped where they lie. */

import { afterAll, expect } from "bun:test";
import { chmodSync, readFileSync, statSync, utimesSync } from "node:fs";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { ModelFolder } from "../harness/load.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

testWith()("load maps a file, ls and hold know it, free forgets it, and nobody touches it", async () => {
  using folder = new ModelFolder();
  const path = folder.writeTensor("w.safetensors", Buffer.alloc(2 ** 21, 1));
  chmodSync(path, 0o644);
  const state = () => {
    const { ino, mode, nlink, size, mtimeNs } = statSync(path, { bigint: true });
    return { ino, mode, nlink, size, mtimeNs, content: readFileSync(path, "latin1") };
  };
  const before = state();
  await using server = await startServer({ env: { TENSORD_MODEL_ROOTS: folder.path } });
  const { stdout: mapped } = await server.command("load", path, "--mode", "map");
  expect(mapped).toStartWith(`mapped ${path} to default/w, sealed, 1 tensor, `);
  expect(mapped).toContain(`\n  path     ${path}\n  mode     map: it was asked for\n`);
  const { id } = (await server.api.findByName("w")) as { id: string };
  const { stdout: judged } = await server.command("load", path, "--mode", "auto", "--json");
  expect(JSON.parse(judged)).toMatchObject([{ region: id, mode: "map", total_bytes: 0 }]);
  expect((await server.command("load", path, "--mode", "mapped")).status).not.toBe(0);

  const { stdout: listed } = await server.command("ls");
  expect(listed).toMatch(/^REGION .* SIZE +/m);
  expect(listed).toMatch(new RegExp(`^${id} .* \\(mapped\\) .* ${path}$`, "m"));
  const script = 'cat "$TENSORD_PATH" | wc -c; exit 3';
  expect(await server.command("hold", "w", "--", "sh", "-c", script)).toEqual({
    ...{ status: 3, stderr: "" },
    stdout: `${before.size}\n`,
  });
  expect(await server.api.get(id)).toMatchObject({ leases: 0, in_use: false });
  expect((await server.command("doctor")).stdout).not.toContain(path);

  // More than is read into the server before it is sent: the kernel sends it, from the file.
  const answer = await fetch(`http://localhost/v1/regions/${id}/data`, { unix: server.instance.socket });
  expect((await answer.bytes()).length).toBe(2 ** 21);
  utimesSync(path, 1, 1);
  const refused = await server.command("hold", "w", "--", "true");
  expect(refused).toMatchObject({
    status: 1,
    stderr: expect.stringContaining(`${path} is modified since it was loaded`),
  });
  expect((await server.command("ls")).stdout).toContain("(mapped, modified)");
  const diagnosis = await server.command("doctor");
  expect(diagnosis.stdout).toContain("is not the file any more that was loaded");
  utimesSync(path, Number(before.mtimeNs / 1_000_000_000n), Number(before.mtimeNs) / 1e9);
  expect((await server.command("rm", "w")).status).toBe(0);
  expect({ ...state(), mtimeNs: 0n }).toEqual({ ...before, mtimeNs: 0n });
});
