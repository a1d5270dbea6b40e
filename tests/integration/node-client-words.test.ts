/** Words of a newer server that the Node client does not know: they are read, and refused only where they would be mapped. */

import { afterAll, beforeAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";
import { SocketProxy } from "../harness/node-proxy.ts";
import { startServer, type TestServer } from "../harness/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
  await server.api.create({ name: "known", tensors: [{ name: "w", dtype: "F32", shape: [2] }], ttl_ms: 600_000 });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await assertNothingLeft();
});

/** A server of tomorrow: this one's answers with other words in them. */
const speaking = (words: Readonly<Record<string, string>>) => {
  const rewrite = (text: string) =>
    Object.entries(words).reduce((said, [old, next]) => said.replaceAll(old, next), text);
  return new SocketProxy(server.instance.socket, { rewrite }).listening();
};

for (const runtime of usualRuntimes) {
  const claim = testWith(needsNodeClient);

  claim(
    `${runtime}: a storage, an owner, a dtype and a code of tomorrow are read, and only mapping is refused`,
    async () => {
      await using tomorrow = await speaking({
        '"F32"': '"F99"',
        '"kind":"ttl"': '"kind":"own"',
        "region-not-found": "region-not-fount",
      });
      await using elsewhere = await speaking({ '"kind":"shm"': '"kind":"hbm"', '"path"': '"pfad"', '"ino"': '"nix"' });
      const seen = await runProgram(
        runtime,
        server.env,
        `
        const client = await connect({ url: "${tomorrow.url}", session: false });
        const { owner, tensors: [{ dtype }] } = await client.get("known");
        const tensor = (await client.attach("known")).tensor("w");
        const other = await connect({ url: "${elsewhere.url}", session: false });
        const listed = [];
        for await (const { storage } of other.list()) listed.push(storage.kind);
        const error = await other.attach("known").catch((error) => error);
        tell({
          owner: owner.kind, dtype, bytes: tensor.bytes().length, array: await codeOf(() => tensor.array()),
          code: await codeOf(() => client.get("unknown")), listed, attach: [error.code, error.detail.replace(/^.*: its/, "its")],
        });
      `,
      );
      expect(seen).toEqual({
        owner: "own",
        dtype: "F99",
        bytes: 8,
        array: "feature-unavailable",
        code: "region-not-fount",
        listed: ["hbm"],
        attach: ["feature-unavailable", "its storage is hbm, want shm, memfd, heap or file"],
      });
    },
  );
}
