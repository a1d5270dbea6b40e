/** Pressure: a pool tells when it runs full and when it has room again, and not at every change between. */

import { describe, expect, test } from "bun:test";
import { limits, MiB } from "../../src/memory/limits.ts";
import type { StoreEvent } from "../../src/memory/state/store-event.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { openSession } from "./support/sessions.ts";

interface EventPage {
  readonly items: readonly { readonly type: string; readonly subject?: string; readonly data: object }[];
}

const pageBytes = 4096;
/** A limit of a hundred pages, so that a percent is one. */
const limitBytes = 100 * pageBytes;

/** What was told of pressure, in order. */
function listen(app: TestApp): string[] {
  const told: string[] = [];
  app.store.listen((event: StoreEvent) => {
    if (event.type === "tensord.pool.pressure")
      told.push(`${event.pressure.model ?? "server"} ${event.pressure.level}`);
  });
  return told;
}

/** Takes that many pages of the model, header included. */
async function take(app: TestApp, model: string, pages: number): Promise<string> {
  return (await app.create({ model, byte_size: (pages - 1) * pageBytes })).id;
}

describe("a model's pressure", () => {
  test(
    "is high at 90 % of its limit and normal below 80 %, and is told once each",
    withApp(async (app) => {
      const told = listen(app);
      await app.register("small", limitBytes);
      await take(app, "small", 79);
      const pages = [await take(app, "small", 10)];
      expect(told).toEqual([]);
      pages.push(await take(app, "small", 1));
      expect(told).toEqual(["small high"]);
      for (let count = 0; count < 3; count++) pages.push(await take(app, "small", 2));
      for (const id of pages.splice(1)) await app.remove(id);
      await take(app, "small", 1);
      expect(told).toEqual(["small high"]);
      await app.remove(pages[0] ?? "");
      expect(told).toEqual(["small high"]);
      await app.remove(await take(app, "small", 2));
      expect(told).toEqual(["small high"]);
    }),
  );

  test(
    "ends when it falls below 80 %",
    withApp(async (app) => {
      const told = listen(app);
      await app.register("small", limitBytes);
      await take(app, "small", 79);
      const page = await take(app, "small", 1);
      const rest = await take(app, "small", 10);
      expect(told).toEqual(["small high"]);
      await app.remove(rest);
      expect(told).toEqual(["small high"]);
      await app.remove(page);
      expect(told).toEqual(["small high", "small normal"]);
      await take(app, "small", 11);
      expect(told).toEqual(["small high", "small normal", "small high"]);
    }),
  );

  test(
    "follows its limit",
    withApp(async (app) => {
      const told = listen(app);
      await app.register("small", limitBytes);
      await take(app, "small", 50);
      await app.ok(200, "PATCH", "/v1/models/small", { memory_limit_bytes: 50 * pageBytes });
      await app.ok(200, "PATCH", "/v1/models/small", { memory_limit_bytes: null });
      expect(told).toEqual(["small high", "small normal"]);
    }),
  );

  test(
    "says how much is used of how much, as an event about the model",
    withApp(async (app) => {
      await app.register("small", limitBytes);
      const id = await take(app, "small", 90);
      await app.remove(id);
      const { items } = await app.ok<EventPage>(200, "GET", "/v1/events?model=small&types=tensord.pool.");
      expect(items).toMatchObject([
        {
          type: "tensord.pool.pressure",
          subject: "small",
          data: { level: "high", model: "small", used_bytes: 90 * pageBytes, limit_bytes: limitBytes },
        },
        { data: { level: "normal", model: "small", used_bytes: 0, limit_bytes: limitBytes } },
      ]);
    }),
  );
});

test(
  "the server's own pressure is told too, about no model, and a model without a limit has none",
  withApp(
    async (app) => {
      const told = listen(app);
      const { id } = await app.create({ byte_size: 7.5 * MiB, session: (await openSession(app)).id });
      expect(told).toEqual(["server high"]);
      await app.remove(id);
      expect(told).toEqual(["server high", "server normal"]);
      const { items } = await app.ok<EventPage>(200, "GET", "/v1/events?types=tensord.pool.pressure");
      expect(items[0]).toMatchObject({ data: { level: "high", model: null, limit_bytes: 8 * MiB } });
      expect(items[0]).not.toContainKey("subject");
    },
    { memoryLimitBytes: 8 * MiB + limits.journalBytes },
  ),
);
