/** The server as one executable, as `npm run build` makes it: it needs nothing of the folder that it is started in, and obeys nothing there. */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeHostile } from "../harness/hostile-folder.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { tensord } from "../harness/server-program.ts";

afterAll(assertNothingLeft);

const needsExecutable =
  process.env.TEST_EXECUTABLE === undefined
    ? "needs the executable, which a whole `npm test` builds and names in TEST_EXECUTABLE"
    : undefined;

testWith(needsExecutable)("the executable works whole in a folder whose files would stop it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tensord-hostile-"));
  try {
    makeHostile(folder);
    await using server = await startServer({ prefix: ["env", "-C", folder] });
    // Over 1 MiB, a Worker allocates.
    const region = await server.api.create({ byte_size: 64 * 2 ** 20, ttl_ms: 3_600_000 });
    expect(region.storage.path).toStartWith(`${server.instance.shmDirectory}/tensord.${server.instance.name}.`);
    // The host's facts are another Worker's.
    const { findings } = JSON.parse((await server.command("doctor", "--json")).stdout);
    expect(findings.map(({ check }: { check: string }) => check)).toContain("open-files");
    const page = await fetch("http://localhost/docs/swagger-ui-bundle.js", { unix: server.instance.socket });
    expect([page.status, (await page.text()).length > 2 ** 20]).toEqual([200, true]);
    await server.stop();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("--version says the version, and an executable the commit that it was built from", () => {
  const { stdout } = Bun.spawnSync([...tensord, "--version"], { cwd: root });
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  // Which one it is the acceptance of a release compares: here somebody may have committed meanwhile.
  const of = needsExecutable === undefined ? "(commit [0-9a-f]{12}(, changed)?|sources)" : "sources";
  expect(String(stdout)).toMatch(new RegExp(`^${version} \\(${of}\\)\n$`));
});

testWith(needsExecutable)("the executable does not name the folder that it was built in", async () => {
  const bytes = readFileSync(process.env.TEST_EXECUTABLE ?? "");
  // Any folder may be called like something inside; one with packages is called like none.
  for (const folder of ["node_modules", "src"]) expect(bytes.includes(join(root, folder))).toBeFalse();
});
