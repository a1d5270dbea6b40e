/** A command line that meets something else than its server says so, in a sentence. */

import { afterAll, expect, test } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsReadableCheckout, needsRoot, testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";

afterAll(assertNothingLeft);

const commands = [["status"], ["ls"], ["top", "--once"], ["rm", "w"], ["alloc", "w", "--size", "1B", "--ttl", "1h"]];

for (const [what, toAnswer] of [
  ["a page", () => new Response("<html>welcome</html>", { headers: { "content-type": "text/html" } })],
  ["a page of an error", () => new Response("<html>not here</html>", { status: 404 })],
  ["an empty answer", () => new Response(null, { status: 502 })],
  ["a list", () => Response.json([1, 2])],
  ["somebody else's error", () => Response.json({ error: "nope" }, { status: 404 })],
] as const) {
  test(`a server that answers with ${what} is none of ours`, async () => {
    using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: toAnswer });
    const url = `http://127.0.0.1:${server.port}`;
    for (const command of commands) {
      const { status, stdout, stderr } = await runTensord([...command, "--url", url], {});
      expect([status, stdout]).toEqual([1, ""]);
      expect(stderr).toMatch(
        new RegExp(`^tensord: Cannot read the answer of ${url}: .+\nhint: Is a tensord server there\\?.+\n$`),
      );
    }
  });
}

test("an object that has nothing of ours is none of our books", async () => {
  using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.json({ ok: true }) });
  for (const command of [["status"], ["ls"], ["top", "--once"], ["events", "--no-follow"]]) {
    const { status, stderr } = await runTensord([...command, "--url", `http://127.0.0.1:${server.port}`], {});
    expect(status).toBe(1);
    expect(stderr).toMatch(/^tensord: Cannot read the answer.*\nhint: Is a tensord server there.+\n$/);
  }
});

testWith(needsRoot, needsReadableCheckout())("the server of another user says whose it is", async () => {
  await using server = await startServer();
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const { status, stderr } = await runTensord(["ls", "--url", `unix://${server.instance.socket}`], {}, asNobody);
  expect(status).toBe(1);
  expect(stderr).toMatch(
    /^tensord: Cannot reach the server at unix:.+: uid 65534 may not open its socket \(EACCES\)\nhint: It belongs to uid 0 .+\n$/,
  );
});
