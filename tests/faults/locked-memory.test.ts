/**
 * Workers that lock their address space (`mlockall`), or may lock nearly nothing (`ulimit -l`): they hold what they map once,
 * all of them together, and what cannot be had leaves nothing behind. Python's: V8 aborts in a locked address space.
 */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { needsReadableCheckout, needsRoot, needsStockPython, testWith } from "../harness/instance-needs.ts";
import { startPython } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

const byteSize = 16 * 2 ** 20;
const hour = 3_600_000;

const workers = `
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def lock(flags):
    if libc.mlockall(flags) != 0: raise OSError(ctypes.get_errno(), "mlockall")
def of_maps(path, what):
    kib, counts = 0, False
    for line in open("/proc/self/smaps"):
        if line[:1] in "0123456789abcdef": counts = path in line
        elif counts and line.startswith(what): kib += int(line.split()[1])
    return kib << 10
`;

/** Flags of mlockall. */
const [current, future] = [1, 2];

testWith(needsRoot ?? needsStockPython)(
  "workers in locked address spaces hold one copy between them, and let go of it when they are killed",
  async () => {
    await using server = await startServer();
    const region = await server.api.create({
      name: "weights",
      ttl_ms: hour,
      tensors: [{ name: "data", dtype: "U8", shape: [byteSize] }],
    });
    await server.api.seal(region.id);
    const readers = Array.from({ length: 3 }, () =>
      startPython(
        server.env,
        `${workers}
lock(${current | future})
with tensord.connect() as client:
    region = client.attach("weights")
    path = region.descriptor.storage.path
    array = region.numpy(private=True)
    total = int(region.numpy()[::4096].sum())
    tell([total, of_maps(path, "Anonymous:"), of_maps(path, "Locked:") > 0])
    array[:4096] = 7
    # Another region, from its making to its seal.
    made = client.create(f"made-{os.getpid()}", np.ones(1 << 20, np.uint8), ttl=3600)
    kept = made.numpy()
    made.seal()
    tell([of_maps(path, "Anonymous:"), of_maps(made.descriptor.storage.path, "Anonymous:"), int(kept.sum())])
    receive()
`,
      ),
    );
    try {
      for (const reader of readers) expect(await reader.hear()).toEqual([0, 0, true]);
      for (const reader of readers) expect(await reader.hear()).toEqual([4096, 0, 2 ** 20]);
      expect(await server.api.get(region.id)).toMatchObject({ in_use: true });
    } finally {
      await Promise.all(readers.map((reader) => reader.kill()));
    }
    await until("nobody maps it", async () => !(await server.api.get(region.id)).in_use);
    for (const { id } of await server.api.list()) {
      await server.api.delete(id);
      await server.api.untilGone(id);
    }
    await checkBooks(server);
  },
);

testWith(needsReadableCheckout() ?? needsStockPython)(
  "who may lock nearly nothing is told so, leaves nothing behind, and maps once he locks no more",
  async () => {
    await using server = await startServer();
    await using worker = startPython(
      server.env,
      `${workers}
limit = 2 << 20
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
os.setgroups([os.getegid()])
os.setgid(65534)
os.setuid(65534)
def files():
    "Open files of regions: sockets come and go with the session's thread."
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try: links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError: pass
    return sum("tensord." in link for link in links)
def attempt(call):
    try: call()
    except tensord.TensordError as error: return [error.code, "ulimit -l" in str(error)]
    return None
with tensord.connect() as client:
    with client.create("weights", np.ones(16 << 20, np.uint8), ttl=3600) as made:
        made.seal()
        with open(made.descriptor.storage.path): opened = files()
        tell([opened, attempt(made.lock_memory)])
    lock(${future})
    tell([attempt(lambda: client.attach("weights")), attempt(lambda: client.create("more", shape=(16 << 20,), dtype="U8", ttl=3600))])
    tell([of_maps("tensord.", "Size:"), files(), [region.name for region in client.list()]])
    libc.munlockall()
    with client.attach("weights") as region: tell(int(region.numpy().sum()))
`,
    );
    expect(await worker.hear()).toEqual([1, ["mapping-failed", true]]);
    expect(await worker.hear()).toEqual([
      ["mapping-failed", true],
      ["mapping-failed", true],
    ]);
    expect(await worker.hear()).toEqual([0, 0, ["weights"]]);
    expect(await worker.hear()).toBe(byteSize);
    await worker.end();
    await checkBooks(server);
  },
);
