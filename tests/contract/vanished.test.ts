/** Who asks for a region that is gone is told how it ended, while that is remembered. */

import { describe, expect, test } from "bun:test";
import { unlinkSync } from "node:fs";
import { limits } from "../../src/memory/limits.ts";
import { EndedRegions } from "../../src/memory/state/ended-regions.ts";
import type { Problem } from "../harness/answers.ts";
import { type TestApp, until, withApp } from "../harness/app.ts";
import { Clock } from "./support/clock.ts";
import { endSession, openSession } from "./support/sessions.ts";

/** What is said of it, by name and by id. */
async function told(app: TestApp, name: string, id: string): Promise<[string, string]> {
  const byName = await app.request("GET", `/v1/models/default/regions/${name}`);
  const byId = await app.request("GET", `/v1/regions/${id}`);
  const [one, other] = [byName.body as Problem, byId.body as Problem];
  expect([one.code, other.code]).toEqual(["region-not-found", "region-not-found"]);
  return [one.detail, other.detail];
}

/** Ends a region that is called `w`. @returns how that is told. */
const ends: Readonly<Record<string, (app: TestApp, clock: Clock) => Promise<{ id: string; how: string }>>> = {
  async request(app) {
    const { id } = await app.create({ name: "w" });
    await app.remove(id);
    return { id, how: "was deleted by request" };
  },
  async session(app) {
    const session = await openSession(app, { client: { name: "trainer", pid: 7 } });
    const { id } = await app.create({ name: "w", session: session.id });
    await endSession(app, session);
    return { id, how: `ended with session ${session.id} (trainer, pid 7)` };
  },
  async ttl(app) {
    const { id } = await app.create({ name: "w", ttl_ms: 1 });
    await until("it is over", async () => (await app.request("GET", `/v1/regions/${id}`)).status === 404);
    return { id, how: "ended with its TTL" };
  },
  async eviction(app, clock) {
    const { id } = await app.create({ name: "w", evictable: true, persist: true });
    await app.seal(id);
    clock.advance(limits.handOutMs);
    await app.ok(200, "POST", "/v1/evict", { bytes: 1 });
    return { id, how: "was evicted to make room" };
  },
  async loss(app) {
    const { id, storage } = await app.create({ name: "w" });
    unlinkSync(`/dev/shm/tensord.${app.instance}/keep/${id.slice("reg_".length)}`);
    unlinkSync(storage.path);
    await app.request("GET", `/v1/regions/${id}`);
    return { id, how: "was lost: somebody removed its file" };
  },
};

describe("a region that is gone", () => {
  for (const [end, act] of Object.entries(ends)) {
    test(
      `tells its end by ${end}, and how long ago that was`,
      withApp(async (app) => {
        using clock = new Clock();
        const { id, how } = await act(app, clock);
        clock.advance(12_400);
        const [byName, byId] = await told(app, "w", id);
        const ago = /; the last that had it (.+) \d+ s ago$/.exec(byName)?.[1];
        expect(ago).toBe(how);
        expect(byId).toMatch(new RegExp(`^Cannot find region "${id}": it .+ \\d+ s ago$`));
        expect(byId).toContain(how);
      }),
    );
  }

  test(
    "is told of in its version, and nothing is said of one that never was, or of a name that stands",
    withApp(async (app) => {
      const { id } = await app.create({ name: "w", version: "1" });
      await app.remove(id);
      const detail = async (query: string) =>
        ((await app.request("GET", `/v1/models/default/regions/w${query}`)).body as Problem).detail;
      expect(await detail("?version=1")).toContain("was deleted by request");
      expect(await detail("")).toContain("was deleted by request");
      expect(await detail("?version=2")).toEndWith('nobody has version "2" of the name');
      const [, never] = await told(app, "other", `reg_${"a".repeat(26)}`);
      expect(never).toEndWith("it is deleted or never was");
    }),
  );
});

test("of what has ended no more is remembered than is allowed, and the latest", () => {
  const ended = new EndedRegions();
  const toRegion = (i: number) => ({ token: `t${i}`, model: "m", version: "", formerName: `n${i}` });
  for (let i = 0; i < limits.endedRegions; i++) ended.remember(toRegion(i), "ended", 0);
  expect(ended.tellByName("m", "n0", undefined, 0)).toBeUndefined();
  expect(ended.tellById(`t${limits.endedRegions - 1}`, 3_600_000)).toBe("ended 60 min ago");
  expect(ended.tellByName("m", `n${limits.endedRegions - 1}`, "", 119_000)).toBe("ended 119 s ago");
});
