/** A body that the runtime writes to a file, on a tmpfs and on a disk: where its bytes go, and that it can be stopped. */

import { describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Inflow } from "../../src/memory/storage/inflow.ts";
import { testToken } from "../harness/instance.ts";

const before = "................";

/** A body that comes as the test lets it. */
function createBody() {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  return {
    body: readable,
    send: (text: string) => writer.write(Buffer.from(text)).catch(() => {}),
    end: () => writer.close(),
    breakOff: (error: Error) => writer.abort(error),
  };
}

async function withFile(place: string, check: (path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(place, `tensord-inflow-${testToken}-`));
  const path = join(folder, "file");
  writeFileSync(path, before);
  try {
    await check(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const until = async (condition: () => boolean) => {
  for (let tries = 0; !condition(); tries++) {
    if (tries > 2000) throw new Error("not in time");
    await Bun.sleep(1);
  }
};

/** How many descriptors of this process are of `path`. */
function countOpen(path: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  }).length;
}

const asItIs = (error: unknown) => error;

for (const [what, place] of [
  ["a tmpfs", "/dev/shm"],
  ["a disk", tmpdir()],
] as const) {
  describe(`on ${what}`, () => {
    test("a body lies where it belongs, and nothing is cut off", () =>
      withFile(place, async (path) => {
        const { body, send, end } = createBody();
        using inflow = new Inflow(path, body, 4, asItIs);
        await send("01");
        await send("23");
        await end();
        await inflow.ended;
        expect(inflow.byteSize).toBe(4);
        expect(readFileSync(path, "utf8")).toBe("....0123........");
      }));

    test("what comes after it is disposed is written nowhere, and no descriptor stays", () =>
      withFile(place, async (path) => {
        const { body, send } = createBody();
        const inflow = new Inflow(path, body, 4, asItIs);
        const failed = inflow.ended.then(
          () => false,
          () => true,
        );
        await send("01");
        await until(() => inflow.byteSize === 2);
        inflow[Symbol.dispose]();
        await send("23");
        expect(await failed).toBeTrue();
        await until(() => countOpen(path) === 0);
        expect(readFileSync(path, "utf8")).toBe("....01..........");
      }));

    test("a body that breaks off fails as it did, with what came written", () =>
      withFile(place, async (path) => {
        const { body, send, breakOff } = createBody();
        using inflow = new Inflow(path, body, 0, asItIs);
        await send("01");
        await until(() => inflow.byteSize === 2);
        void breakOff(new Error("gone"));
        await expect(inflow.ended).rejects.toThrow("gone");
        expect(readFileSync(path, "utf8")).toBe("01..............");
      }));
  });
}
