/** What each form of the Node client's mappings does under locks, pins and writes: its rows of the table of docs/memory.md. */

import { afterAll, beforeAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { root, testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runProgram, runtimes, startProgram } from "../harness/node-program.ts";
import { startServer, type TestServer } from "../harness/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

/** The forms, each with a region of its own; and the calls that lock and pin, by C. */
const forms = `
  const { readFileSync } = await import("node:fs");
  const { default: koffi } = await import("koffi");
  const libc = koffi.load(null);
  const call = (declaration) => {
    const bound = libc.func(declaration);
    return (...given) => {
      const result = Number(bound(...given));
      if (result < 0) throw new Error(Object.entries(koffi.os.errno).find(([, value]) => value === koffi.errno())?.[0]);
      return result;
    };
  };
  const mlock = call("int mlock(uintptr_t address, size_t length)");
  const mlockall = call("int mlockall(int flags)");
  const munlockall = call("int munlockall()");
  const close = call("int close(int fd)");
  const setUpRing = call("long syscall(long number, unsigned int entries, void *params)");
  const register = call("long syscall(long number, int fd, unsigned int operation, void *argument, unsigned int count)");
  const [current, future, onFault] = [1, 2, 4];
  const byteSize = 4 * 2 ** 20;

  /** Start and length of the one place where a file is mapped. */
  const placeOf = (path) => {
    const lines = readFileSync("/proc/self/maps", "utf8").split("\\n").filter((line) => line.includes(path));
    const ends = lines.map((line) => line.split(" ")[0].split("-").map((end) => BigInt("0x" + end)));
    return [ends[0][0], Number(ends.at(-1)[1] - ends[0][0])];
  };
  const copied = (path) => {
    const parts = readFileSync("/proc/self/smaps", "utf8").split(/\\n(?=[0-9a-f]+-)/).filter((part) => part.includes(path));
    const bytes = parts.reduce((sum, part) => sum + 1024 * Number(/Anonymous: +(\\d+)/.exec(part)[1]), 0);
    // The page of the header may be there as well.
    return bytes === 0 ? "0" : bytes >= byteSize && bytes <= byteSize + 4096 ? "all" : bytes + " bytes";
  };
  const pinned = (path) => {
    const ring = setUpRing(425, 1, Buffer.alloc(120));
    try {
      const [start, length] = placeOf(path);
      register(427, ring, 0, Buffer.from(new BigUint64Array([start, BigInt(length)]).buffer), 1);
      return copied(path);
    } finally {
      close(ring);
    }
  };

  const client = await connect();
  let last = 0;
  const create = () => client.create("memory-" + process.pid + "-" + last++, { dtype: "U8", shape: [byteSize] }, { ttlMs: 3_600_000 });
  const sealed = async () => {
    const region = await create();
    await region.seal();
    region.close();
    return region;
  };
  // V8 gives pages of its own back now and then, and aborts where the kernel refuses that for a locked one: so for no longer
  // than it takes to map something.
  const inLockedSpace = (action) => {
    mlockall(future);
    try {
      return action();
    } finally {
      munlockall();
    }
  };
  const attached = async (options) => client.attach((await sealed()).name, options);
  const opened = async (options, map = (action) => action()) => {
    const region = options.writable ? await create() : await sealed();
    const whole = await client.attach(region.name);
    const reference = whole.tensor().ref();
    whole.close();
    const tensor = map(() => client.open(reference, options));
    return { descriptor: region.descriptor, tensor: () => tensor, close: () => (tensor.close(), region.close()) };
  };
  const inSlot = async () => {
    const ring = await client.ring({ slots: 1, slotBytes: byteSize, ttlMs: 3_600_000, name: "memory-" + last++ });
    const reference = await ring.put(new Uint8Array(byteSize));
    // Its owner's own map is not asked about.
    ring.close();
    while (readFileSync("/proc/self/maps", "utf8").includes(reference.path)) await collect();
    const rings = client.rings();
    const tensor = rings.open(reference);
    return { descriptor: await client.getById(reference.region), tensor: () => tensor, close: () => rings.close() };
  };
  const sealedHere = async (inSpace) => {
    const region = await create();
    if (!inSpace) {
      await region.seal();
      return region;
    }
    mlockall(future);
    const sealing = region.seal();
    // It maps the region anew before it asks the server.
    for (let turns = 0; region.isWritable && turns < 100; turns++) await undefined;
    munlockall();
    if (region.isWritable) throw new Error("it was not mapped anew in a locked address space");
    await sealing;
    return region;
  };
  const forms = {
    "Node \`attach\`, \`open\`": {
      ways: [() => attached({}), () => opened({})],
      inSpace: () => opened({}, inLockedSpace),
    },
    "Node \`strict: true\`, \`rings.open\`": {
      ways: [() => attached({ strict: true }), inSlot],
      inSpace: () => opened({ strict: true }, inLockedSpace),
    },
    "Node \`writable: true\`, and \`create\` before its seal": {
      ways: [create],
      inSpace: () => opened({ writable: true }, inLockedSpace),
    },
    "Node \`create\` after its seal": { ways: [() => sealedHere(false)], inSpace: () => sealedHere(true) },
  };
`;

const measures = `
  const columns = [
    ({ descriptor: { storage } }) => (mlock(...placeOf(storage.path)), copied(storage.path)),
    // Bun has 6 GiB of address space that it may write to, and this would have all of it.
    globalThis.Bun ? undefined : ({ descriptor: { storage } }) => (mlockall(current), munlockall(), copied(storage.path)),
    ({ descriptor: { storage } }) => copied(storage.path),
    ({ descriptor: { storage } }) => (mlockall(current | onFault), munlockall(), copied(storage.path)),
    ({ descriptor: { storage } }) => {
      try {
        return pinned(storage.path);
      } catch (error) {
        return error.message;
      }
    },
  ];
  const measured = {};
  for (const [name, { ways, inSpace }] of Object.entries(forms)) {
    measured[name] = [];
    for (const [number, measure] of columns.entries()) {
      const answers = new Set();
      for (const map of measure === undefined ? [] : number === 2 ? [inSpace] : ways) {
        const mapped = await map();
        answers.add(measure(mapped));
        mapped.close();
        await client.delete(mapped.descriptor);
      }
      measured[name].push([...answers].join(" or "));
    }
  }
  const region = await attached({});
  const array = region.tensor().bytes();
  const lock = await region.lockMemory();
  const { path } = region.descriptor.storage;
  const isLocked = () => / lo\\b/.test(readFileSync("/proc/self/smaps", "utf8").split(/\\n(?=[0-9a-f]+-)/)
    .filter((part) => part.includes(path)).map((part) => /VmFlags:(.*)/.exec(part)[1]).join());
  const states = [copied(path), isLocked()];
  lock.release();
  states.push(isLocked(), lock.isReleased);
  const kept = await region.lockMemory();
  region.close();
  states.push(isLocked(), kept.isReleased, await codeOf(() => region.lockMemory()), array[0]);
  tell({ measured, states });
`;

/** The rows of the table, by their first cell. */
function tableRows(): ReadonlyMap<string, readonly string[]> {
  const lines = readFileSync(join(root, "docs/memory.md"), "utf8").replaceAll("\\|", "or").split("\n");
  const rows = lines
    .filter((line) => line.startsWith("| Node"))
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
  return new Map(rows.map(([name = "", ...cells]) => [name, cells]));
}

const mayLock =
  Bun.spawnSync(["sh", "-c", "ulimit -l"]).stdout.toString().trim() === "unlimited" || process.geteuid?.() === 0;
const needsLocks = needsNodeClient ?? (mayLock ? undefined : "needs to lock memory (ulimit -l)");

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  const claim = testWith(needsLocks);

  claim(`${runtime}: locks and pins copy what docs/memory.md says, and lockMemory nothing`, async () => {
    interface Told {
      readonly measured: Record<string, string[]>;
      readonly states: unknown[];
    }
    const { measured, states } = await runProgram<Told>(runtime, server.env, forms + measures);
    const table = tableRows();
    expect([...table.keys()]).toEqual(Object.keys(measured));
    for (const [name, cells] of Object.entries(measured)) {
      const said = table.get(name)?.slice(0, cells.length) ?? [];
      const isSkipped = (index: number) =>
        cells[index] === "" || (index === 4 && ["EPERM", "ENOSYS"].includes(cells[index] ?? ""));
      expect([name, ...cells]).toEqual([
        name,
        ...said.map((cell, index) => (isSkipped(index) ? (cells[index] ?? "") : cell)),
      ]);
    }
    expect(states).toEqual(["0", true, false, true, false, true, "closed", 0]);
  });

  claim(`${runtime}: a mapping lies in its large pages as the file does, and leaves nothing`, async () => {
    const placed = `
      const large = 2n ** 21n;
      const regions = [];
      for (const options of [{}, { strict: true }]) regions.push(await attached(options), await attached(options));
      regions.push(await create());
      const places = regions.map(({ descriptor }) => placeOf(descriptor.storage.path));
      const bytes = regions.map((region) => region.tensor().bytes()[byteSize - 1]);
      await regions.at(-1).seal();
      const after = placeOf(regions.at(-1).descriptor.storage.path);
      for (const region of regions) {
        region.close();
        await client.delete(region.descriptor);
      }
      const paths = regions.map(({ descriptor }) => descriptor.storage.path);
      for (let turns = 0; turns < 1000 && paths.some((path) => readFileSync("/proc/self/maps", "utf8").includes(path)); turns++) {
        await collect();
      }
      tell({
        shifts: places.map(([start]) => Number(start % large)),
        lengths: places.map(([, length]) => length - byteSize),
        isMoved: after[0] !== places.at(-1)[0],
        bytes,
        left: paths.filter((path) => readFileSync("/proc/self/maps", "utf8").includes(path)).length,
      });
    `;
    const told = await runProgram<Record<string, unknown>>(runtime, server.env, forms + placed);
    expect(told).toEqual({
      shifts: [0, 0, 0, 0, 0],
      lengths: [4096, 4096, 4096, 4096, 4096],
      isMoved: false,
      bytes: [0, 0, 0, 0, 0],
      left: 0,
    });
  });

  claim(`${runtime}: a write goes where docs/memory.md says`, async () => {
    const written = `
      const map = Object.values(forms)[await receive()].ways[0];
      const region = await map();
      const array = region.tensor().bytes();
      tell("mapped");
      array[7] = 9;
      tell(array[7]);
      tell(readFileSync(region.descriptor.storage.path)[region.tensor().byteOffset + 7] === 9 ? "reaches all" : "private page");
      region.close();
      await client.delete(region.descriptor);
      await client.close();
      process.exit();
    `;
    for (const [number, [name, cells]] of [...tableRows()].entries()) {
      await using program = startProgram(runtime, server.env, forms + written);
      await program.say(number);
      expect(await program.hear()).toBe("mapped");
      const isOver = await program.hear().catch((error: Error) => error);
      const outcome = isOver instanceof Error ? "ends the process" : await program.hear();
      expect([name, outcome]).toEqual([name, cells.at(-1)]);
    }
  });
}
