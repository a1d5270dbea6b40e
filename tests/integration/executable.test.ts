/** The server as one executable, as `npm run build` makes it: it needs nothing of the folder that it is started in, and obeys nothing there. */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { tensord } from "../harness/server-program.ts";

afterAll(assertNothingLeft);

const needsExecutable =
  process.env.TEST_EXECUTABLE === undefined
    ? "needs the executable, which a whole `npm test` builds and names in TEST_EXECUTABLE"
    : undefined;

function makeHostileFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tensord-hostile-"));
  const files = {
    ".env": "TENSORD_MEMORY_LIMIT=1MiB\nTENSORD_LOG_LEVEL=nonsense\n",
    "bunfig.toml": 'preload = ["./preload.ts"]\n',
    "preload.ts": 'throw new Error("the preload of a stranger ran");\n',
    "package.json": "{ this is no JSON",
    "tsconfig.json": "{ nor is this",
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

testWith(needsExecutable)("the executable works whole in a folder whose files would stop it", async () => {
  const folder = makeHostileFolder();
  try {
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
  const commit = String(Bun.spawnSync(["git", "rev-parse", "--short=12", "HEAD"], { cwd: root }).stdout).trim();
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  // Without a checkout there is no commit to tell; a change may have come after the build, or before it.
  const built = commit === "" ? ["sources"] : [`commit ${commit}`, `commit ${commit}, changed`];
  const want = needsExecutable === undefined ? built : ["sources"];
  expect(want.map((of) => `${version} (${of})\n`)).toContain(String(stdout));
});
