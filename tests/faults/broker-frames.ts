/** Messages that no client would send, or hardly: requests with something wrong in them, and bytes with something wrong in those. */

import type { Random } from "../harness/instance-random.ts";

/** What stands where something else should. */
function toOddValue(random: Random): unknown {
  return random.pick<() => unknown>([
    () => null,
    () => random.isTrue(0.5),
    () => random.pick([0, -1, 1, 0.5, 1e308, -(2 ** 53), 2 ** 53, 2 ** 31, 250, 251]),
    () =>
      random.pick([
        "",
        "ro",
        "rw",
        "maker",
        "both",
        "default",
        "weights",
        "__proto__",
        "\u0000",
        "\ud800",
        "../../etc/passwd",
      ]),
    () => "x".repeat(random.pick([1, 64, 129, 5000])),
    () => [],
    () => ({}),
    () => [[[[[[[[]]]]]]]],
    () => ({ toString: 1, constructor: null, __proto__: { ok: true } }),
    () => ({ ttl_ms: random.pick([1, 1000, 60_000]), client: { pid: random.pick([1, 4711, 0]) } }),
  ])();
}

/** A request, mostly with one thing or two about it that is not as it should be. */
export function toOddRequest(
  random: Random,
  regions: readonly string[],
  id: number,
  { device = "GPU-0", pools = [] }: { readonly device?: string; readonly pools?: readonly string[] } = {},
): string {
  const region = random.pick([...regions, "reg_aaaaaaaaaaaaaaaaaaaaaaaaaa", "reg_", "ses_aaaaaaaaaaaaaaaaaaaaaaaaaa"]);
  const pool = random.pick([...pools, "vmm_aaaaaaaaaaaaaaaaaaaaaaaaaa", "reg_"]);
  const pages = random.pick([[[1, 1]], [[1, 2]], [[1, 251]], [[2 ** 31, 1]], [[1, 0]], [[1]], [], [[1, 65_536]]]);
  const lease = random.pick(["consumer", "maker", "both"]);
  const request: Record<string, unknown> = random.pick<() => Record<string, unknown>>([
    () => ({ id, op: "hello", v: 1 }),
    () => ({ id, op: "hello", v: 1, session: { ttl_ms: 1000, client: { name: "fuzz" } } }),
    () => ({ id, op: "attach", region, access: random.pick(["ro", "rw"]), lease, count: random.integer(0, 4) }),
    () => ({ id, op: "attach", region, access: "ro", tensors: true, count: random.integer(0, 250) }),
    () => ({ id, op: "attach", model: "default", name: random.pick(["weights", "absent"]), access: "ro" }),
    () => ({ id, op: "release", region, lease }),
    () => ({
      id,
      op: "pool",
      model: random.pick(["default", "absent"]),
      device_uuid: device,
      moves: random.isTrue(0.5),
    }),
    () => ({ id, op: "pool", device_uuid: device, moves: true, slot: random.pick([0, 1, 4096]), taken: pages }),
    () => ({ id, op: "take", pool, pages }),
    () => ({ id, op: "let_go", pool, pages, sequence: random.pick(["0", "1795000000000123", "-1"]) }),
    () => ({ id, op: "leave", pool }),
    () => ({ id, op: "report", reports: [{ attach: region, writable: random.isTrue(0.5) }, { detach: region }] }),
  ])();
  for (let count = random.pick([0, 0, 1, 1, 2]); count > 0; count--) {
    const member = random.pick([...Object.keys(request), "more", "token", "session", "count", "version"]);
    if (random.isTrue(0.3)) delete request[member];
    else request[member] = toOddValue(random);
  }
  return JSON.stringify(request);
}

/** Bytes that were a request, or never were one. */
export function toOddBytes(random: Random, text: string): Uint8Array {
  const bytes = Buffer.from(text);
  const at = random.integer(0, bytes.length - 1);
  switch (random.pick(["flip", "cut", "twice", "insert", "noise", "long", "space"])) {
    case "flip":
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << random.integer(0, 7)), at);
      return bytes;
    case "cut":
      return bytes.subarray(0, at);
    case "twice":
      return Buffer.concat([bytes, bytes.subarray(at)]);
    case "insert":
      return Buffer.concat([bytes.subarray(0, at), Buffer.of(random.integer(0, 255)), bytes.subarray(at)]);
    case "noise":
      return Buffer.from(Array.from({ length: random.integer(0, 300) }, () => random.integer(0, 255)));
    case "long":
      return Buffer.concat([bytes, Buffer.alloc(random.pick([1, 4096, 60_000]), random.pick([" ", "[", '"', "\0"]))]);
    default:
      return Buffer.concat([Buffer.from(" \n\t\r".repeat(random.integer(1, 1000))), bytes]);
  }
}
