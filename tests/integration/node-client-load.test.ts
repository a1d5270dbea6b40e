/** Model files that the server loads for the Node client: once, mapped, followed, and refused in words. */

import { afterAll, expect } from "bun:test";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { ModelFolder, modelFolder, tinyPath } from "../harness/load.ts";
import { needsNodeClient, runProgram, usualRuntimes } from "../harness/node-program.ts";
import { startServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

for (const runtime of usualRuntimes) {
  const claim = testWith(needsNodeClient);

  claim(
    `${runtime}: a loaded model is mapped, is one region however often it is loaded, and fails in words`,
    async () => {
      using folder = new ModelFolder();
      folder.write("model.onnx", "bytes");
      const broken = folder.write("broken.safetensors", "none");
      await using server = await startServer({ env: { TENSORD_MODEL_ROOTS: `${modelFolder},${folder.path}` } });
      const seen = await runProgram<Record<string, unknown>>(
        runtime,
        { TENSORD_URL: `unix://${server.instance.socket}` },
        `
        const [tiny, folder, broken] = ${JSON.stringify([tinyPath, folder.path, broken])};
        const client = await connect();
        const told = [];
        const region = await client.loadModel(tiny, { onProgress: (...bytes) => told.push(bytes) });
        const { owner } = region.descriptor;
        const tensors = [...region.tensors.keys()];
        const bytes = [...region.tensor("b").bytes()];
        const operation = await client.load(tiny, { storage: "shm" });
        const same = (await operation.wait()).id === region.id;
        process.chdir(folder);
        const raw = await client.loadModel("model.onnx", { raw: true, name: "onnx", version: "v", persist: true, strict: true });
        const failure = (action) => action().then(() => ["no error"], ({ code, detail }) => [code, detail]);
        tell({
          region: [region.name, region.state, owner.kind, tensors, bytes],
          operation: [operation.descriptor.kind, operation.descriptor.source, operation.state, same],
          raw: [raw.name, raw.version, Buffer.from(raw.tensor().bytes()).toString()],
          isWhole: told.every(([done, total]) => done <= total),
          taken: (await failure(() => client.loadModel(tiny, { ifExists: "fail" })))[0],
          broken: await failure(() => client.loadModel(broken)),
          outside: await failure(() => client.load("/etc/passwd")),
          device: (await failure(() => client.load(tiny, { device: "GPU-1", storage: "shm" })))[0],
        });
        client.close();
      `,
      );
      expect(seen).toEqual({
        region: ["tiny", "sealed", "linger", ["w", "b"], [16, 17, 18]],
        operation: ["load", tinyPath, "succeeded", true],
        raw: ["onnx", "v", "bytes"],
        isWhole: true,
        taken: "name-taken",
        broken: ["invalid-model-file", expect.stringContaining(`Cannot load "${broken}": `)],
        outside: ["forbidden", expect.stringContaining("it is below none of")],
        device: "validation-failed",
      });
    },
  );
}
