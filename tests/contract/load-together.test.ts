/** Files that are loaded at the same time: who comes while another with the same bytes is loaded waits for that, where its region can stand for it. */

import { describe, expect, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import { MiB } from "../../src/memory/limits.ts";
import { cancelOperation } from "../../src/memory/operations/run.ts";
import type { LatePages } from "../../src/memory/storage/storage.ts";
import { type TestApp, withApp } from "../harness/app.ts";
import { ModelFolder } from "../harness/load.ts";
import { loadFile } from "./support/load.ts";
import type { Operation } from "./support/operations.ts";

const name = "w";

describe("a file that comes while another with its bytes is loaded", () => {
  const content = Buffer.alloc(4 * MiB, 3);
  const other = Buffer.from(content).fill(1, content.length - 1);

  interface Both {
    readonly app: TestApp;
    readonly first: Promise<Operation>;
    readonly second: Promise<Operation>;
  }

  /**
   * Loads a second file while the first is written and not sealed, which it is held at.
   * @param release resolves when it may go on.
   */
  function withBoth(
    later: Uint8Array,
    body: object,
    release: (both: Both, isOpened: Promise<void>) => Promise<unknown>,
    use: (first: Operation, second: Operation, app: TestApp) => Promise<void>,
  ) {
    return async function useBoth() {
      const opened = Promise.withResolvers<void>();
      let opens = 0;
      const onStep = (step: string) => {
        if (step === "load.opened") opens += 1;
        if (step === "load.opened" && opens === 2) opened.resolve();
      };
      using folder = new ModelFolder();
      const paths = [content, later].map((data, at) => folder.writeTensor(`${at}.safetensors`, data));
      await withApp(
        async (app) => {
          const latePages = app.store.storages.get("shm").memory.latePages as LatePages;
          const complete = latePages.complete.bind(latePages);
          const held = Promise.withResolvers<void>();
          const released = Promise.withResolvers<void>();
          latePages.complete = async (...region) => {
            latePages.complete = complete;
            held.resolve();
            await released.promise;
            await complete(...region);
          };
          const first = loadFile(app, paths[0] as string, { name });
          await held.promise;
          const second = loadFile(app, paths[1] as string, { name, ...body });
          await release({ app, first, second }, opened.promise);
          released.resolve();
          await use(await first, await second, app);
        },
        { onStep, modelRoots: [folder.path] },
      )();
    };
  }

  /** It looks around in the turn in which it is opened. */
  const untilItWaits = async (_: Both, isOpened: Promise<void>) => {
    await isOpened;
    await setImmediate();
  };

  test(
    "waits for that, and is its region",
    withBoth(content, {}, untilItWaits, async (first, second, app) => {
      expect(first).toMatchObject({ state: "succeeded", reason: "that is the default" });
      expect(second).toMatchObject({ state: "succeeded", region: first.region });
      expect(second.reason).toContain(`nothing was copied, as ${first.region} has the same bytes`);
      expect(second.done_bytes).toBe(second.total_bytes);
      expect(app.store.books.regions.size).toBe(1);
    }),
  );

  test(
    "is loaded where that has other bytes",
    withBoth(other, {}, untilItWaits, async (first, second, app) => {
      expect(second).toMatchObject({ state: "succeeded", reason: "that is the default" });
      expect(second.region).not.toBe(first.region);
      expect(await app.verify(second.region as string)).toMatchObject({ ok: true });
    }),
  );

  const cancelFirst = async (both: Both, isOpened: Promise<void>) => {
    await untilItWaits(both, isOpened);
    const [running] = both.app.store.operations.after(0, both.app.store.now());
    if (running !== undefined) void cancelOperation(running);
  };
  test(
    "is loaded where that comes to nothing",
    withBoth(content, {}, cancelFirst, async (first, second, app) => {
      expect(first.state).toBe("cancelled");
      expect(second).toMatchObject({ state: "succeeded", reason: "that is the default" });
      expect(app.store.books.regions.size).toBe(1);
    }),
  );

  const cancelSecond = async (both: Both, isOpened: Promise<void>) => {
    await untilItWaits(both, isOpened);
    const [, waiting] = both.app.store.operations.after(0, both.app.store.now());
    if (waiting !== undefined) void cancelOperation(waiting);
    await both.second;
  };
  test(
    "and is cancelled waits no longer",
    withBoth(content, {}, cancelSecond, async (first, second, app) => {
      expect([first.state, second.state]).toEqual(["succeeded", "cancelled"]);
      expect(app.store.books.regions.size).toBe(1);
    }),
  );

  for (const [what, later, body] of [
    ["has other labels", content, { labels: { a: "b" } }],
    ["is of another size", Buffer.alloc(MiB), {}],
    ["has a version that was said", content, { version: "mine" }],
  ] as const) {
    test(
      `waits for nothing where it ${what}`,
      withBoth(
        later,
        body,
        ({ second }) => second,
        async (first, second, app) => {
          expect(second).toMatchObject({ state: "succeeded", reason: "that is the default" });
          expect(second.region).not.toBe(first.region);
          expect(app.store.books.regions.size).toBe(2);
        },
      ),
    );
  }
});
