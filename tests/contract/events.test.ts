/** Pages of events: where they begin and end, what a filter leaves out, how a gap shows, and which Accept asks for a page. */

import { describe, expect, test } from "bun:test";
import { limits } from "../../src/memory/limits.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { checkFrame, type EventFrame } from "../harness/event-frame.ts";

interface Page {
  readonly items: readonly EventFrame[];
  readonly next_after: string;
}

async function readPage(app: TestApp, query = "", headers: Readonly<Record<string, string>> = {}): Promise<Page> {
  return app.ok<Page>(200, "GET", `/v1/events${query}`, undefined, { headers });
}

const ids = ({ items }: Page) => items.map(({ id }) => Number(id));

/** Tells `count` events that cost nothing. @returns the first one's number. */
function tell({ store }: TestApp, count: number): number {
  const model = store.books.findModel("default");
  if (model === undefined) throw new Error("no model");
  const first = store.events.last + 1;
  for (let told = 0; told < count; told++) store.emit({ type: "tensord.model.changed", model });
  return first;
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}

describe("a page of events", () => {
  test(
    "is empty before there is one, and says where the next page begins all the same",
    withApp(async (app) => {
      const page = await readPage(app);
      expect(page).toEqual({ items: [], next_after: String(app.store.events.last) });
      const first = tell(app, 1);
      expect(ids(await readPage(app, `?after=${page.next_after}`))).toEqual([first]);
    }),
  );

  test(
    "tells each event of what was so when it was told, however late it is read first",
    withApp(async (app) => {
      const { id } = await app.create({ labels: { step: "1" } });
      const told = Date.now();
      while (Date.now() === told) await Bun.sleep(1);
      await app.ok(200, "PATCH", `/v1/regions/${id}`, { labels: { step: "2" } });
      await app.ok(200, "DELETE", `/v1/regions/${id}`);
      const { items } = await readPage(app, "?types=tensord.region.");
      const facts = items.map(({ type, time, data }) => {
        const { state, labels, revision } = data as { state: string; labels: object; revision: number };
        return { type, isEarly: Date.parse(time as string) <= told, state, labels, revision };
      });
      expect(facts.slice(0, 2)).toEqual([
        { type: "tensord.region.allocated", isEarly: true, state: "open", labels: { step: "1" }, revision: 1 },
        { type: "tensord.region.changed", isEarly: false, state: "open", labels: { step: "2" }, revision: 2 },
      ]);
      expect(facts.at(-1)).toMatchObject({ type: "tensord.region.deleted", state: "deleted" });
    }),
  );

  test(
    "begins with the oldest kept event, has 100, and the next one goes on where it ended",
    withApp(async (app) => {
      const first = tell(app, 250);
      const one = await readPage(app);
      expect(ids(one)).toEqual(range(first, 100));
      expect(one.next_after).toBe(String(first + 99));
      const two = await readPage(app, `?after=${one.next_after}&limit=149`);
      expect(ids(two)).toEqual(range(first + 100, 149));
      const three = await readPage(app, `?after=${two.next_after}`);
      expect(ids(three)).toEqual([first + 249]);
      expect(await readPage(app, `?after=${three.next_after}`)).toEqual({ items: [], next_after: three.next_after });
      for (const frame of one.items) checkFrame(frame);
    }),
  );

  test(
    "has as many as `limit` says, up to 1000, and everything comes once",
    withApp(async (app) => {
      const first = tell(app, 2500);
      for (const limit of [1, 7, 1000]) {
        const got: number[] = [];
        for (let after = String(first - 1), isMore = true; isMore; ) {
          const page = await readPage(app, `?after=${after}&limit=${limit}`);
          expect(page.items.length).toBeLessThanOrEqual(limit);
          got.push(...ids(page));
          isMore = limit > 1 ? page.items.length > 0 : got.length < 10;
          after = page.next_after;
        }
        expect(got).toEqual(range(first, limit > 1 ? 2500 : 10));
      }
      for (const limit of ["0", "1001", "-1", "1.5", "", "many"])
        await app.refused("validation-failed", "GET", `/v1/events?limit=${limit}`);
    }),
  );

  test(
    "begins after any number that is kept, and an empty one is none",
    withApp(async (app) => {
      const first = tell(app, 5);
      for (let skipped = 0; skipped <= 5; skipped++)
        expect(ids(await readPage(app, `?after=${first - 1 + skipped}`))).toEqual(range(first + skipped, 5 - skipped));
      expect(ids(await readPage(app, "?after="))).toEqual(range(first, 5));
    }),
  );

  test(
    "begins with a gap where something older was asked for than is kept",
    withApp(async (app) => {
      const first = tell(app, limits.keptEvents + 10);
      const floor = first + 9;
      for (const after of [0, 1, first - 1, floor - 1]) {
        const { items, next_after } = await readPage(app, `?after=${after}&limit=3`);
        expect(items[0]).toMatchObject({
          type: "tensord.stream.gap",
          source: `/tensord/${app.instance}`,
          data: { requested_after: String(after), first_available: String(floor + 1), after: String(floor) },
        });
        expect(items[0]).not.toHaveProperty("subject");
        for (const frame of items) checkFrame(frame);
        expect(items.slice(1).map(({ id }) => Number(id))).toEqual([floor + 1, floor + 2]);
        expect(next_after).toBe(String(floor + 2));
      }
      expect(ids(await readPage(app, `?after=${floor}&limit=1`))).toEqual([floor + 1]);
      expect(ids(await readPage(app, "?limit=1"))).toEqual([floor + 1]);
    }),
  );

  test(
    "has a gap alone for a number that nobody was given yet, and what comes next follows it",
    withApp(async (app) => {
      const last = tell(app, 3) + 2;
      for (const after of [last + 1, Number.MAX_SAFE_INTEGER]) {
        const page = await readPage(app, `?after=${after}`);
        const data = { requested_after: String(after), first_available: String(last + 1), after: String(last) };
        expect(page).toMatchObject({ items: [{ type: "tensord.stream.gap", data }] });
        expect(page.next_after).toBe(String(last));
      }
      expect(await readPage(app, `?after=${last}`)).toMatchObject({ items: [] });
    }),
  );

  test(
    "is refused for what is no number of an event, with the text that was sent",
    withApp(async (app) => {
      const garbage = [
        "-1",
        "1.5",
        "1e3",
        "0x10",
        "+1",
        "%201",
        "yesterday",
        "１２",
        "null",
        "1;2",
        "9007199254740992",
        "9".repeat(17),
      ];
      for (const after of garbage) await app.refused("validation-failed", "GET", `/v1/events?after=${after}`);
      for (const id of ["-1", "1.5", "yesterday", "9007199254740992", "9".repeat(1000)]) {
        const headers = { "last-event-id": id };
        const problem = await app.refused("validation-failed", "GET", "/v1/events", undefined, { headers });
        expect(problem.detail).toContain(id.slice(0, 80));
      }
    }),
  );

  test(
    "begins after Last-Event-ID, which wins over `after`",
    withApp(async (app) => {
      const first = tell(app, 5);
      const headers = { "last-event-id": String(first + 2) };
      expect(ids(await readPage(app, "", headers))).toEqual([first + 3, first + 4]);
      expect(ids(await readPage(app, `?after=${first}`, headers))).toEqual([first + 3, first + 4]);
      await app.refused("validation-failed", "GET", `/v1/events?after=${first}`, undefined, {
        headers: { "last-event-id": "?" },
      });
    }),
  );
});

describe("a filter", () => {
  /** One event of each of: default's region ×4, the model llama, llama's region ×2. */
  async function tellOfTwoModels(app: TestApp): Promise<string> {
    const before = String(app.store.events.last);
    const { id } = await app.create();
    await app.seal(id);
    await app.register("llama");
    await app.create({ model: "llama" });
    await app.remove(id);
    return before;
  }

  const told = [
    "tensord.region.allocated",
    "tensord.region.sealed",
    "tensord.model.registered",
    "tensord.region.allocated",
    "tensord.region.draining",
    "tensord.region.deleted",
  ];
  const all = [0, 1, 2, 3, 4, 5];
  for (const [query, passing] of [
    ["", all],
    ["&model=llama", [2, 3]],
    ["&model=default", [0, 1, 4, 5]],
    ["&model=nobody", []],
    ["&types=tensord.region.", [0, 1, 3, 4, 5]],
    ["&types=tensord.model.", [2]],
    ["&types=tensord.region.se", [1]],
    ["&types=tensord.region.sealed,tensord.model.", [1, 2]],
    ["&types=tensord.region.allocated&model=llama", [3]],
    ["&types=,tensord.model.,", [2]],
    ["&types=", all],
    ["&types=region", []],
    ["&types=TENSORD.", []],
  ] as const) {
    test(
      `of ${query === "" ? "nothing" : query.slice(1)} lets pass what it says`,
      withApp(async (app) => {
        const after = await tellOfTwoModels(app);
        const page = await readPage(app, `?after=${after}${query}`);
        expect(page.items.map(({ type }) => type)).toEqual(passing.map((index) => told[index] ?? ""));
        expect(ids(page)).toEqual(passing.map((index) => Number(after) + 1 + index));
        // What it left out is not looked at again.
        expect(page.next_after).toBe(String(app.store.events.last));
      }),
    );
  }

  test(
    "that lets one in thousands pass gives it in one page, whatever lies before it",
    withApp(async (app) => {
      tell(app, 5 * limits.eventScan);
      await app.register("llama");
      const { items } = await readPage(app, "?model=llama&limit=1");
      expect(items).toMatchObject([{ type: "tensord.model.registered", subject: "llama" }]);
    }),
  );

  test(
    "never leaves a gap out",
    withApp(async (app) => {
      const { items } = await readPage(app, "?after=1&model=nobody&types=tensord.region.lost");
      expect(items).toMatchObject([{ type: "tensord.stream.gap" }]);
    }),
  );

  test(
    "is refused when it has too many prefixes, or names what can be no model",
    withApp(async (app) => {
      const many = Array.from({ length: limits.eventTypes }, () => "tensord.").join(",");
      await readPage(app, `?types=${many}`);
      await app.refused("validation-failed", "GET", `/v1/events?types=${many},tensord.`);
      await app.refused("validation-failed", "GET", `/v1/events?types=${"x".repeat(5000)}`);
      for (const model of ["", ".hidden", "a/b", "a%00b", "x".repeat(129)])
        await app.refused("validation-failed", "GET", `/v1/events?model=${model}`);
    }),
  );
});

describe("Accept", () => {
  for (const accept of [
    "*/*",
    "application/json",
    "text/html",
    "text/*",
    "text/event-streams",
    "xtext/event-stream",
    "",
  ]) {
    test(
      `${JSON.stringify(accept)} asks for a page`,
      withApp(async (app) => {
        expect(await readPage(app, "", { accept })).toMatchObject({ items: [] });
        expect(app.store.feeder.size).toBe(0);
      }),
    );
  }

  for (const accept of [
    "text/event-stream",
    "TEXT/Event-Stream",
    "text/event-stream;charset=utf-8",
    "application/json, text/event-stream",
    "text/event-stream , */*;q=0.1",
  ]) {
    test(
      `${JSON.stringify(accept)} asks for the stream`,
      withApp(async (app) => {
        const response = await app.app.fetch(new Request("http://localhost/v1/events", { headers: { accept } }), {});
        expect(response.status).toBe(200);
        expect(response.headers.get("content-type")).toBe("text/event-stream");
        expect(response.headers.get("cache-control")).toBe("no-store");
        await response.body?.cancel();
        expect(app.store.feeder.size).toBe(0);
      }),
    );
  }
});
