/** The instance's directory is moved away under a running server, as another user may do where no sticky bit is. */

import { afterAll, expect } from "bun:test";
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { exists, readContent, writeContent } from "../harness/instance-content.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { ServerApi } from "../harness/server-api.ts";
import { runTensord } from "../harness/server-command.ts";

const hour = 3_600_000;

afterAll(assertNothingLeft);

testWith()(
  "create, seal and delete go on when the directory is moved away, and a decoy in its place is not touched",
  async () => {
    await using server = await startServer();
    const { directory, name } = server.instance;
    const kept = await server.api.create({ name: "before", byte_size: 100_000, persist: true });
    writeContent(kept, 1);
    const before = readContent(kept.storage.path);
    const away = `${directory}-away`;
    renameSync(directory, away);
    mkdirSync(join(directory, "keep"), { recursive: true });
    writeFileSync(join(directory, "keep", tokenOf(kept.id)), "a decoy");
    try {
      const api = new ServerApi(join(away, "http.sock"));
      const region = await api.create({ name: "after", byte_size: 100_000, ttl_ms: hour });
      writeContent(region, 2);
      expect((await api.seal(region.id, { checksum: true })).state).toBe("sealed");
      expect((await api.verify(region.id)).ok).toBeTrue();
      expect(readdirSync(join(away, "keep")).toSorted()).toEqual([tokenOf(kept.id), tokenOf(region.id)].toSorted());
      expect(await api.delete(region.id)).toMatchObject({ state: "deleted" });
      expect(exists(region.storage.path)).toBeFalse();
      expect(readContent(join(directory, "keep", tokenOf(kept.id))).byteSize).toBe("a decoy".length);
    } finally {
      rmSync(directory, { recursive: true });
      renameSync(away, directory);
    }
    // Back again, the same server is found at the same place.
    expect(await server.api.get(kept.id)).toMatchObject({ state: "open", name: "before" });
    await server.stop();
    await server.start();
    expect(readContent(kept.storage.path)).toEqual(before);
    expect((await checkBooks(server)).map(({ id }) => id)).toEqual([kept.id]);
    expect(readdirSync(server.instance.shmDirectory)).not.toContain(`tensord.${name}-away`);
  },
);

testWith()("a server that was killed while its directory was away is found whole once it is back", async () => {
  await using server = await startServer();
  const { directory } = server.instance;
  const region = await server.api.create({ name: "kept", byte_size: 100_000, persist: true });
  writeContent(region, 3);
  const before = readContent(region.storage.path);
  renameSync(directory, `${directory}-away`);
  await server.kill("SIGKILL");
  renameSync(`${directory}-away`, directory);
  await server.start();
  expect(readContent(region.storage.path)).toEqual(before);
  expect((await checkBooks(server)).map(({ id }) => id)).toEqual([region.id]);
});

testWith()(
  "a server that starts while the directory is away begins anew and leaves the other's regions alone",
  async () => {
    await using server = await startServer();
    const { directory } = server.instance;
    const region = await server.api.create({ name: "kept", byte_size: 100_000, persist: true });
    writeContent(region, 4);
    const before = readContent(region.storage.path);
    await server.stop();
    renameSync(directory, `${directory}-away`);
    await server.start();
    expect(await server.api.list()).toEqual([]);
    expect(readContent(region.storage.path)).toEqual(before);
    await server.stop();
    expect((await runTensord(["purge"], server.env)).status).toBe(0);
    renameSync(`${directory}-away`, directory);
    await server.start();
    expect(readContent(region.storage.path)).toEqual(before);
    expect((await checkBooks(server)).map(({ id }) => id)).toEqual([region.id]);
  },
);
