/** Many workers race for one name, under each `if_exists` and by claim: it has one holder, and everybody knows which. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { testWith } from "../harness/instance-needs.ts";
import { type Claim, claim, endSession, openSession } from "../harness/instance-sessions.ts";
import { startServer, type TestServer } from "../harness/server.ts";
import type { NewRegion, Region } from "../harness/server-api.ts";

const MiB = 2 ** 20;
const hour = 3_600_000;
const workers = 32;
/** Small regions are made in one turn of the server's loop, large ones while others are served. */
const sizes = [20_000, 3 * MiB];
const rounds = 4;

afterAll(assertNothingLeft);

async function race<Result>(run: (worker: number) => Promise<Result>): Promise<Result[]> {
  return await Promise.all(Array.from({ length: workers }, (_, worker) => run(worker)));
}

function raceToCreate({ api }: TestServer, request: NewRegion) {
  return race(() => api.request<Region & { code?: string }>("POST", "/v1/regions", request));
}

for (const byte_size of sizes) {
  testWith()(
    `of ${workers} that create a name of ${byte_size} bytes one has it, and the others are refused`,
    async () => {
      await using server = await startServer();
      for (let round = 0; round < rounds; round++) {
        const answers = await raceToCreate(server, { name: "new", byte_size, ttl_ms: hour });
        const created = answers.filter(({ status }) => status === 201);
        expect(created).toHaveLength(1);
        for (const { status, body } of answers)
          if (status !== 201) expect([status, body.code]).toEqual([409, "name-taken"]);
        await server.api.delete(created[0]?.body.id ?? "");
      }
      await checkBooks(server);
    },
  );

  testWith()(
    `${workers} that attach or create a name of ${byte_size} bytes share one region, which one of them made`,
    async () => {
      await using server = await startServer();
      for (let round = 0; round < rounds; round++) {
        const answers = await raceToCreate(server, { name: "new", byte_size, linger_ms: hour, if_exists: "attach" });
        expect(answers.map(({ status }) => status).toSorted()).toEqual([...Array<number>(workers - 1).fill(200), 201]);
        expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
        await server.api.delete(answers[0]?.body.id ?? "");
      }
      await checkBooks(server);
    },
  );

  testWith()(
    `${workers} that replace a name of ${byte_size} bytes leave the region of one of them, and no other`,
    async () => {
      await using server = await startServer();
      for (let round = 0; round < rounds; round++) {
        const answers = await race(async () => {
          const region = await server.api.create({ name: "new", byte_size, persist: true, if_exists: "replace" });
          return { id: region.id, seal: await server.api.request("POST", `/v1/regions/${region.id}/seal`, {}) };
        });
        const isSealed = ({ seal }: (typeof answers)[number]) => seal.status === 200;
        // Whoever found the name free has it at once, and may be replaced before its own seal; nobody else may.
        const lost = answers
          .filter((answer) => !isSealed(answer))
          .map(({ seal }) => (seal.body as { code: string }).code);
        expect(lost.length).toBeLessThanOrEqual(1);
        for (const code of lost) expect(code).toBeOneOf(["region-draining", "region-not-found", "cancelled"]);
        const holder = await server.api.findByName("new");
        expect(answers.filter(isSealed).map(({ id }) => id)).toContain(holder?.id ?? "");
        for (const { id } of answers) if (id !== holder?.id) await server.api.untilGone(id);
        expect(await server.api.list()).toHaveLength(1);
        await server.api.delete(holder?.id ?? "");
      }
      await checkBooks(server);
    },
  );

  testWith()(
    `of ${workers} that claim a name of ${byte_size} bytes one builds at a time, until one has built it`,
    async () => {
      await using server = await startServer();
      for (let round = 0; round < rounds; round++) {
        let building = 0;
        let given = 0;
        let built = 0;
        const regions = await race(async () => {
          const session = await openSession(server.api);
          for (;;) {
            const answer = await waitForClaim(server, session.id);
            if (answer.region?.state === "sealed") return answer.region.id;
            if (answer.claim === null) continue;
            building += 1;
            expect(building, "one builds at a time").toBe(1);
            const region = await server.api.create({ name: "new", byte_size, linger_ms: hour, claim: answer.claim });
            building -= 1;
            if (given < 5) {
              given += 1;
              await endSession(server.api, session.id);
              return null;
            }
            built += 1;
            return (await server.api.seal(region.id)).id;
          }
        });
        const read = new Set(regions.filter((id) => id !== null));
        expect({ built, given, read: read.size }).toEqual({ built: 1, given: 5, read: 1 });
        await server.api.delete([...read][0] ?? "");
      }
      expect((await server.api.stats()).claims).toBe(0);
      await checkBooks(server);
    },
  );
}

testWith()("claims without waiting, and creations that ignore them, leave the name to the one builder", async () => {
  await using server = await startServer();
  const sessions = await race(() => openSession(server.api));
  const answers = await race(async (worker) => {
    const id = sessions[worker]?.id ?? "";
    if (worker % 4 === 0)
      return await server.api.request("POST", "/v1/regions", { name: "new", byte_size: 1, session: id });
    return await claim(server.api, "new", id);
  });
  const builders = answers.filter((answer) => "role" in answer && answer.role === "builder");
  const created = answers.filter((answer) => "status" in answer && answer.status === 201);
  expect(builders.length + created.length, "one has the name, either way").toBe(1);
  await race((worker) => endSession(server.api, sessions[worker]?.id ?? ""));
  expect(await server.api.stats()).toMatchObject({ sessions: 0, claims: 0, pools: [{ used_bytes: 0 }] });
});

/** Waits in line. The harness' client sends no headers of its own. */
async function waitForClaim({ instance }: TestServer, session: string): Promise<Claim> {
  const response = await fetch("http://localhost/v1/models/default/regions/new/claim", {
    unix: instance.socket,
    method: "POST",
    headers: { "content-type": "application/json", prefer: "wait=180" },
    body: JSON.stringify({ session }),
  });
  if (!response.ok) throw new Error(`the claim answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as Claim;
}
