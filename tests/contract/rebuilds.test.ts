/** A rebuild: a sealed region is built anew, and stands for everybody else until the new one takes its name at the seal. */

import { afterAll, describe, expect, test } from "bun:test";
import type { Region } from "../harness/answers.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { LentApps } from "../harness/lent-app.ts";
import { type Claim, claimPath, endSession, openSession, type Session, watchWaits } from "./support/sessions.ts";

const apps = new LentApps();
afterAll(() => apps.end());

const path = "/v1/models/default/regions/weights";

async function makeSealed(app: TestApp, more: object = {}): Promise<Region> {
  const { id } = await app.create({ name: "weights", ...more });
  return app.seal(id);
}

function claim(app: TestApp, { id }: Session, more: object = {}, headers = {}): Promise<Claim> {
  return app.ok<Claim>(200, "POST", claimPath, { session: id, ...more }, { headers });
}

const toCreation = (claim: Claim, more: object = {}) => ({
  name: "weights",
  byte_size: 64,
  linger_ms: 600_000,
  if_exists: "replace",
  claim: claim.claim,
  ...more,
});

const create = (app: TestApp, builder: Claim) => app.ok<Region>(201, "POST", "/v1/regions", toCreation(builder));
const holder = async (app: TestApp) => (await app.ok<Region>(200, "GET", path)).id;

describe("a rebuild", () => {
  test(
    "makes the first who asks the builder; the old region is everybody else's until the seal, then the new one is",
    withApp(async (app) => {
      const old = await makeSealed(app);
      const [builder, other] = [await openSession(app), await openSession(app)];
      const turn = await claim(app, builder, { rebuild: old.id });
      expect(turn).toMatchObject({ role: "builder", region: null });
      const built = await create(app, turn);
      expect(built).toMatchObject({ state: "open", name: null, pending_name: "weights", session: builder.id });
      expect(await claim(app, other)).toMatchObject({ role: "reader", region: { id: old.id, state: "sealed" } });
      expect(await holder(app)).toBe(old.id);
      await app.seal(built.id);
      expect(await holder(app)).toBe(built.id);
      expect(await claim(app, other)).toMatchObject({ role: "reader", region: { id: built.id } });
      await app.refused("region-not-found", "GET", `/v1/regions/${old.id}`);
      expect(await app.stats()).toMatchObject({ claims: 0 });
    }),
  );

  test(
    "that a second one asks for waits for the first, and gets what it built",
    apps.with(async (app) => {
      const untilWaiting = watchWaits(app);
      const old = await makeSealed(app);
      const turn = await claim(app, await openSession(app), { rebuild: old.id });
      const second = claim(app, await openSession(app), { rebuild: old.id }, { prefer: "wait=60" });
      await untilWaiting(1);
      const built = await create(app, turn);
      await app.seal(built.id);
      expect(await second).toMatchObject({ role: "reader", region: { id: built.id, state: "sealed" } });
    }),
  );

  test(
    "that is still under way when the time is over has nothing for those who asked for it",
    apps.with(async (app) => {
      const old = await makeSealed(app);
      await claim(app, await openSession(app), { rebuild: old.id });
      const other = await openSession(app);
      expect(await claim(app, other, { rebuild: old.id })).toEqual({ role: "reader", claim: null, region: null });
    }),
  );

  for (const end of ["gives up", "dies"]) {
    test(
      `whose builder ${end} leaves the old region as it was, and the next in line builds`,
      apps.with(async (app) => {
        const untilWaiting = watchWaits(app);
        const old = await makeSealed(app);
        const first = await openSession(app);
        const turn = await claim(app, first, { rebuild: old.id });
        const built = await create(app, turn);
        const next = claim(app, await openSession(app), { rebuild: old.id }, { prefer: "wait=60" });
        await untilWaiting(1);
        if (end === "gives up") await app.ok(200, "DELETE", `${claimPath}?claim=${turn.claim}`);
        else {
          await endSession(app, first);
          await app.refused("region-not-found", "GET", `/v1/regions/${built.id}`);
        }
        expect(await next).toMatchObject({ role: "builder" });
        expect(await app.get(old.id)).toMatchObject({ state: "sealed", name: "weights", revision: old.revision });
      }),
    );
  }

  test(
    "whose creation is asked for again, since the answer was lost, gets what the first one made",
    apps.with(async (app) => {
      const old = await makeSealed(app);
      const turn = await claim(app, await openSession(app), { rebuild: old.id });
      const built = await create(app, turn);
      const again = await app.request("POST", "/v1/regions", toCreation(turn));
      expect(again).toMatchObject({ status: 200, body: { id: built.id, state: "open" } });
      const { difference } = await app.refused(
        "name-taken",
        "POST",
        "/v1/regions",
        toCreation(turn, { byte_size: 65 }),
      );
      expect(difference).toBeDefined();
      await app.remove(built.id);
      expect((await create(app, turn)).id).not.toBe(built.id);
    }),
  );

  test(
    "of what somebody has replaced meanwhile is done: what is there now is newer",
    apps.with(async (app) => {
      const old = await makeSealed(app);
      const next = await makeSealed(app, { if_exists: "replace" });
      const session = await openSession(app);
      expect(await claim(app, session, { rebuild: old.id })).toMatchObject({ role: "reader", region: { id: next.id } });
    }),
  );

  test(
    "of what is gone is a build like any other",
    apps.with(async (app) => {
      const old = await makeSealed(app);
      await app.remove(old.id);
      const turn = await claim(app, await openSession(app), { rebuild: old.id });
      expect(turn).toMatchObject({ role: "builder" });
      const built = await create(app, turn);
      expect(built).toMatchObject({ name: "weights", pending_name: null });
      const again = await app.request("POST", "/v1/regions", toCreation(turn));
      expect(again).toMatchObject({ status: 200, body: { id: built.id } });
    }),
  );

  test(
    "of an open region is none: somebody builds it already",
    apps.with(async (app) => {
      const { id } = await app.create({ name: "weights" });
      const session = await openSession(app);
      expect(await claim(app, session, { rebuild: id })).toMatchObject({
        role: "reader",
        region: { id, state: "open" },
      });
    }),
  );

  test(
    "without a version is of the empty one, though another is newer; with one it is of that one",
    apps.with(async (app) => {
      const plain = await makeSealed(app);
      const second = await makeSealed(app, { version: "2" });
      const session = await openSession(app);
      expect(await claim(app, session, { rebuild: second.id })).toMatchObject({
        role: "reader",
        region: { id: plain.id },
      });
      const turn = await claim(app, session, { rebuild: plain.id });
      const built = await create(app, turn);
      await app.seal(built.id);
      expect(await app.get(second.id)).toMatchObject({ state: "sealed", name: "weights" });
      expect(await claim(app, session, { version: "2", rebuild: second.id })).toMatchObject({ role: "builder" });
    }),
  );
});
