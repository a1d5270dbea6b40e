/** The Node client at the broker of a server that asks for tokens: what hello says there, and what each role gets by it. */

import { afterAll, expect } from "bun:test";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { needsNodeClient, type Runtime, runtimes, startProgram } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";
import { TokensPath, tokenOf } from "../harness/tokens-file.ts";

afterAll(assertNothingLeft);

const lines = [
  { name: "trainer", role: "worker", token: tokenOf("trainer") },
  { name: "other", role: "worker", token: tokenOf("other") },
  { name: "dashboard", role: "reader", token: tokenOf("dashboard") },
  { name: "tenant", role: "worker", token: tokenOf("tenant"), models: ["default"] },
];

for (const runtime of Object.keys(runtimes) as Runtime[]) {
  testWith(needsNodeClient)(
    `${runtime}: what has no name is handed to who shows a token, as far as its role goes`,
    async () => {
      using file = new TokensPath(lines);
      await using server = await startServer({ env: { TENSORD_TOKENS_FILE: file.path } });
      await using program = startProgram(
        runtime,
        { ...server.env, TENSORD_TOKENS_FILE: "" },
        `const as = (name, more) => connect({ token: name + "-${"0123456789abcdef".repeat(2)}", session: false, ...more });
       const trainer = await as("trainer");
       const memfd = await trainer.create("memfd", new Float32Array([1, 2, 3]), { storage: "memfd", ttlMs: 600_000 });
       const hidden = await trainer.create("private", new Float32Array([4]), { private: true, ttlMs: 600_000 });
       memfd.tensor().array()[0] = 7;
       await memfd.seal();
       const found = [];
       for (const name of ["dashboard", "other", "tenant", "trainer"]) {
         const client = await as(name);
         const region = await client.attach("memfd");
         const tensor = client.open(memfd.tensor().ref());
         const open = await client.attach("private");
         found.push([region.attachedBy, region.tensor().array()[0], tensor.array()[1], open.tensor().array()[0]]);
         for (const each of [region, tensor, open]) each.close();
       }
       tell(found);
       const tries = ["dashboard", "other", "tenant", "trainer"].map(async (name) => {
         const client = await as(name);
         return codeOf(async () => (await client.attach("private", { writable: true })).close());
       });
       tell(await Promise.all(tries));
       const ring = await trainer.ring({ slots: 2, slotBytes: 64, storage: "memfd", ttlMs: 600_000 });
       const put = await ring.put(new Float32Array([9]));
       const slot = (await as("other")).open(put);
       tell(slot.array()[0]);
       slot.close();
       ring.close();`,
      );
      expect(await program.hear()).toEqual(Array(4).fill(["descriptor", 7, 2, 4]));
      expect(await program.hear()).toEqual(["forbidden", "forbidden", "forbidden", "no error"]);
      expect(await program.hear()).toBe(9);
      await program.end();
    },
  );

  testWith(needsNodeClient)(
    `${runtime}: a token that is taken away hands out nothing more, and its successor does`,
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "tensord-token-"));
      try {
        const path = join(folder, "token");
        const hold = (name: string) => {
          writeFileSync(`${path}.new`, tokenOf(name));
          renameSync(`${path}.new`, path);
        };
        hold("old");
        const line = (name: string) => ({ name: "trainer", role: "worker", token: tokenOf(name) });
        using file = new TokensPath([line("old")]);
        await using server = await startServer({ env: { TENSORD_TOKENS_FILE: file.path } });
        await using program = startProgram(
          runtime,
          { ...server.env, TENSORD_TOKENS_FILE: "", TENSORD_TOKEN_FILE: path },
          `const client = await connect({ session: false });
         const region = await client.create("memfd", new Float32Array([1]), { storage: "memfd", ttlMs: 600_000 });
         const reference = region.tensor().ref();
         const attach = () => {
           const tensor = client.open(reference);
           const [value] = tensor.array();
           tensor.close();
           return value;
         };
         tell(attach());
         region.close();
         const until = await receive();
         for (;;) {
           const code = await codeOf(async () => attach());
           if (code === until) break;
           if (code !== "no error") tell(code);
           await new Promise((resolve) => setTimeout(resolve, 20));
         }
         tell("refused");
         await receive();
         while ((await codeOf(async () => attach())) !== "no error") await new Promise((resolve) => setTimeout(resolve, 20));
         tell(attach());`,
        );
        expect(await program.hear()).toBe(1);
        file.write([line("new")]);
        await program.say("unauthorized");
        expect(await program.hear()).toBe("refused");
        hold("new");
        await program.say("go on");
        expect(await program.hear()).toBe(1);
        await program.end();
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  );
}
