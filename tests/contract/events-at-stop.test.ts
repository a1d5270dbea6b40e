/** What happens while a server stops is told: by the next one, under a number that nothing else has. */

import { expect, test } from "bun:test";
import { endSession } from "../../src/memory/sessions/sessions.ts";
import { TestApp } from "../harness/app.ts";
import { openSession } from "./support/sessions.ts";

interface Told {
  readonly id: string;
  readonly type: string;
}

const read = async (app: TestApp) => (await app.ok<{ items: Told[] }>(200, "GET", "/v1/events")).items;

test("a session that ends when almost everything is closed has its event, and the next one has another number", async () => {
  let lastDeed = () => {};
  // Closed after what is under way was told to end.
  const lanes = { [Symbol.dispose]: () => lastDeed() };
  const app = await TestApp.open({ storages: () => ({ storages: [], lanes }) });
  const { id } = await openSession(app);
  lastDeed = () => void endSession(app.store, app.store.books.session(id), "request");
  const before = await read(app);
  await app.leave();
  const next = await TestApp.open({ instance: app.instance });
  expect((await next.stats()).sessions).toBe(0);
  await openSession(next);
  const told = (await read(next)).slice(before.length);
  expect(told.map(({ type }) => type)).toEqual(["tensord.session.ended", "tensord.session.opened"]);
  expect(Number(told[1]?.id)).toBe(Number(told[0]?.id) + 1);
  await next.close();
  expect([...app.mistakes, ...next.mistakes]).toEqual([]);
});
