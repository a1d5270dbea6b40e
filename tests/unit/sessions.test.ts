/** What sessions are called by, and the books of what their clients report. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { ClientFacts } from "../../src/memory/journal/session-record.ts";
import { Holders } from "../../src/memory/state/holders.ts";
import type { Region } from "../../src/memory/state/region.ts";
import { describeSession, type Session } from "../../src/memory/state/session.ts";

const token = "a".repeat(26);
const id = `ses_${token}`;

function toSession(name: string | null, client: Partial<ClientFacts> | null) {
  const facts = { name: null, pid: null, hostname: null, version: null, labels: {} };
  const whole = client === null ? null : { ...facts, ...client };
  return { key: 1, token, name, client: whole, quotaBytes: null, ttlMs: 1000, createdAt: 0, createdBy: null };
}

for (const [name, client, want] of [
  ["first", { name: "trainer", pid: 7 }, `${id} (first)`],
  [null, { name: "trainer", pid: 7 }, `${id} (trainer, pid 7)`],
  [null, { name: "trainer" }, `${id} (trainer)`],
  [null, { pid: 7 }, `${id} (pid 7)`],
  [null, { hostname: "node-1" }, id],
  [null, null, id],
] as const) {
  test(`a session of ${JSON.stringify({ name, client })} is called ${want.replace(id, "by its id")}`, () => {
    expect(describeSession(toSession(name, client))).toBe(want);
  });
}

/** The holders look at nothing of a region but its identity, and of a session at what it attached. */
const regions = [0, 1, 2].map(() => ({}) as Region);
const createSessions = () => [0, 1, 2].map(() => ({ attached: new Set<Region>() }) as unknown as Session);

interface Step {
  readonly what: "attach" | "detach" | "forget-session" | "forget-region";
  readonly session: number;
  readonly region: number;
  readonly isConsumer: boolean;
}

/** How often each session maps each region after the steps; beside it stands what the holders are to agree with. */
function count(steps: readonly Step[], session: number, region: number): number {
  let mappings = 0;
  for (const step of steps) {
    const isOurs = step.session === session && step.region === region;
    if (isOurs && step.what === "attach") mappings += 1;
    if (isOurs && step.what === "detach") mappings = Math.max(0, mappings - 1);
    if (step.what === "forget-session" && step.session === session) mappings = 0;
    if (step.what === "forget-region" && step.region === region) mappings = 0;
  }
  return mappings;
}

function apply(holders: Holders, { what, isConsumer }: Step, session: Session, region: Region): void {
  if (what === "attach") holders.attach(session, region, { isConsumer, writable: false });
  if (what === "detach") holders.detach(session, region, !isConsumer);
  if (what === "forget-session") holders.forgetSession(session);
  if (what === "forget-region") holders.forgetRegion(region);
}

test("reported mappings are counted for each session and region, and nothing is left when all are gone", () => {
  const what = fc.constantFrom<Step["what"]>("attach", "attach", "detach", "detach", "forget-session", "forget-region");
  const step = fc.record({ what, session: fc.nat(2), region: fc.nat(2), isConsumer: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const holders = new Holders();
      const sessions = createSessions();
      const pairs = sessions.flatMap((session, at) => regions.map((region, of) => ({ session, at, region, of })));
      for (const done of steps) {
        const { session, region } = pairs.find(({ at, of }) => at === done.session && of === done.region) ?? {};
        if (session !== undefined && region !== undefined) apply(holders, done, session, region);
      }
      for (const { session, at, region, of } of pairs) {
        const mappings = count(steps, at, of);
        expect(holders.of(region).get(session)?.count).toBe(mappings === 0 ? undefined : mappings);
        expect(session.attached.has(region)).toBe(mappings > 0);
      }
    }),
  );
});
