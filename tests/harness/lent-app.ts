/**
 * Apps that a file's tests have one after the other: opening and closing one takes longer than most requests that a test makes. Whoever
 * leaves on it what cannot be taken away is its last.
 */

import { expect } from "bun:test";
import { type AppOptions, TestApp } from "./app.ts";

/** Takes away all that stands; what is in use goes when it is let go of. */
export async function clearApp(app: TestApp): Promise<void> {
  const { books, elastic } = app.store;
  for (const { token } of [...books.sessions.after(0)]) await app.request("DELETE", `/v1/sessions/ses_${token}`);
  for (const { token } of [...books.regions.after(0)]) await app.request("DELETE", `/v1/regions/reg_${token}`);
  for (const { model, deviceUuid } of [...elastic.after(0)])
    await app.request("DELETE", `/v1/models/${model.name}/vmm/${deviceUuid}`);
  for (const name of [...books.models.keys()])
    if (name !== "default") await app.request("DELETE", `/v1/models/${name}?drain=true`);
}

const usual: AppOptions = {};

type Footprint = ReturnType<TestApp["footprint"]>;

export class LentApps {
  /** By what they were opened with: the same object, so that those who ask for the same have the same. */
  readonly #idle = new Map<AppOptions, { readonly app: TestApp; readonly atFirst: Footprint }[]>();

  /** A test's body with an app that has nothing: `test("a claim", apps.with(async (app) => …, options))`. */
  with(use: (app: TestApp) => Promise<void>, options = usual): () => Promise<void> {
    return async () => {
      const lent = this.#idle.get(options)?.pop() ?? (await open(options));
      const { app, atFirst } = lent;
      const { report } = app.devices;
      try {
        await use(app);
        app.devices.report = report;
        await clearApp(app);
        expect(app.mistakes).toEqual([]);
      } catch (error) {
        // The first failure is the one to read.
        await app.close().catch(() => {});
        if (app.mistakes.length > 0) console.error("mistakes of ours:", app.mistakes);
        throw error;
      }
      if (Bun.deepEquals(app.footprint(), atFirst)) this.#idle.getOrInsertComputed(options, () => []).push(lent);
      else await app.close();
    };
  }

  /** For `afterAll`: closes them, and looks whether anything is left. */
  async end(): Promise<void> {
    for (const { app } of [...this.#idle.values()].flat()) await app.close();
    this.#idle.clear();
  }
}

async function open(options: AppOptions) {
  const app = await TestApp.open(options);
  return { app, atFirst: app.footprint() };
}
