import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Ballast } from "../../src/memory/journal/ballast.ts";
import { limits } from "../../src/memory/limits.ts";
import { noMountBecause, SmallTmpfs } from "../contract/support/small-tmpfs.ts";
import { defaultShmDirectory, testToken } from "../harness/instance.ts";

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(defaultShmDirectory, `tensord-ballast-${testToken}-`));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

function heldBytes(path: string): number {
  return (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
}

/** Gives up all that there is, and says in how many slices. */
function giveUpAll(ballast: Ballast): number {
  let slices = 0;
  while (ballast.giveUp()) slices += 1;
  return slices;
}

describe("Ballast", () => {
  test("holds real pages once it is written", () => {
    const path = join(folder, "ballast");
    const ballast = new Ballast(path, folder);
    expect(heldBytes(path)).toBe(0);
    ballast.restore();
    expect(heldBytes(path)).toBe(limits.ballastBytes);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("gives them up slice by slice, and says when there are none left", () => {
    const path = join(folder, "ballast");
    const ballast = new Ballast(path, folder);
    ballast.restore();
    expect(ballast.giveUp()).toBeTrue();
    expect(heldBytes(path)).toBe(limits.ballastBytes - limits.ballastSliceBytes);
    expect(giveUpAll(ballast)).toBe(limits.ballastBytes / limits.ballastSliceBytes - 1);
    expect(heldBytes(path)).toBe(0);
    expect(ballast.giveUp()).toBeFalse();
  });

  test("has nothing to give up before it is written", () => {
    expect(new Ballast(join(folder, "ballast"), folder).giveUp()).toBeFalse();
  });

  test("is whole again after it is restored, whatever is left of it", () => {
    const path = join(folder, "ballast");
    const ballast = new Ballast(path, folder);
    for (const slices of [1, 5, 1000]) {
      ballast.restore();
      for (let slice = 0; slice < slices && ballast.giveUp(); slice++);
      ballast.restore();
      expect(heldBytes(path)).toBe(limits.ballastBytes);
    }
  });

  test("of an earlier server is found and given up by the next", () => {
    const path = join(folder, "ballast");
    new Ballast(path, folder).restore();
    const next = new Ballast(path, folder);
    next.restore();
    expect(heldBytes(path)).toBe(limits.ballastBytes);
    expect(giveUpAll(next)).toBe(limits.ballastBytes / limits.ballastSliceBytes);
  });

  test.skipIf(noMountBecause !== undefined)(
    `takes no page that others need, and gives one up where there is no other (${noMountBecause ?? "a small tmpfs"})`,
    () => {
      using tmpfs = new SmallTmpfs();
      const path = join(tmpfs.path, "ballast");
      const ballast = new Ballast(path, tmpfs.path);
      ballast.restore();
      tmpfs.fill();
      const write = () => writeFileSync(join(tmpfs.path, "row"), Buffer.alloc(limits.ballastSliceBytes));
      expect(write).toThrow("ENOSPC");
      expect(ballast.giveUp()).toBeTrue();
      expect(write).not.toThrow();
      // What is free is less than twice its size, so the slice stays given up.
      ballast.restore();
      expect(heldBytes(path)).toBe(limits.ballastBytes - limits.ballastSliceBytes);
      tmpfs.drain();
      ballast.restore();
      expect(heldBytes(path)).toBe(limits.ballastBytes);
      rmSync(join(tmpfs.path, "row"));
      rmSync(path);
    },
  );
});
