/**
 * Models from real S3 servers, one of which checks signatures: by the command line, the Node client and before the first worker; and that of
 * the credentials nothing is ever told.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { load, loadFile } from "../contract/support/load.ts";
import { type AppOptions, withApp } from "../harness/app.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { needsStockPython, testWith } from "../harness/instance-needs.ts";
import { ModelFolder, tinyPath } from "../harness/load.ts";
import { safetensorsFile } from "../harness/model-files.ts";
import { needsNodeClient, runProgram } from "../harness/node-program.ts";
import { accessKey, S3Servers, secretKey } from "../harness/s3-servers.ts";
import { bucket } from "../harness/s3-service.ts";
import { TestServer } from "../harness/server.ts";

afterAll(assertNothingLeft);

const tiny = readFileSync(tinyPath);
let servers: S3Servers;

beforeAll(async () => {
  if (needsStockPython === undefined) servers = await S3Servers.start();
});
afterAll(async () => {
  await servers?.[Symbol.asyncDispose]();
});

const roots = [`s3://${bucket}/m`];
const signed = { accessKeyId: accessKey, secretAccessKey: secretKey, sessionToken: undefined };

function optionsFor(
  which: "signed" | "unsigned",
  credentials: NonNullable<AppOptions["s3"]>["credentials"],
): AppOptions {
  return { modelRoots: roots, s3: { endpoint: servers[which], region: "us-east-1", credentials, pauseMs: 1 } };
}

function tensorFile(byteSize: number): Buffer {
  const data = Buffer.alloc(byteSize, Buffer.from(Array.from({ length: 241 }, (_, at) => at)));
  const header = { w: { dtype: "U8", shape: [data.length], data_offsets: [0, data.length] } };
  return safetensorsFile(JSON.stringify(header), data);
}

describe.skipIf(needsStockPython !== undefined)("an S3 server", () => {
  for (const [which, credentials] of [
    ["signed", signed],
    ["unsigned", undefined],
  ] as const) {
    const as = `that ${which === "signed" ? "checks signatures" : "checks none"}, asked ${credentials === undefined ? "without" : "with"} one`;
    test(`${as}, gives objects byte for byte, packed ones and all of a model, and another once it has changed`, async () => {
      await withApp(
        async (app) => {
          // Of more than one range; what packs small is of more than one block all the same, once it is unpacked.
          const [large, other] = [tensorFile(8_500_000), tensorFile(300_000)];
          for (const [key, content, whole] of [
            ["m/large.safetensors", large, large],
            ["m/packed.safetensors.gz", gzipSync(other), other],
            ["m/packed.safetensors.zst", zstdCompressSync(other), other],
            ["m/a b+c%20ü.safetensors", tiny, tiny],
          ] as const) {
            const region = await app.get(await load(app, servers.put(key, content), { version: key.slice(-3) }));
            expect(readFileSync(region.storage.path as string).equals(whole), key).toBeTrue();
            expect(await app.verify(region.id)).toMatchObject({ ok: true });
          }
          servers.put("m/s/tiny.safetensors", tiny);
          const weight_map = { w: "tiny.safetensors", b: "tiny.safetensors" };
          const index = servers.put("m/s/all.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map }));
          expect(await app.get(await load(app, index))).toMatchObject({ name: "all", tensor_count: 2 });

          const uri = servers.put("m/w.safetensors", tiny);
          const old = await load(app, uri);
          expect(await load(app, uri)).toBe(old);
          servers.put("m/w.safetensors", large);
          expect(await load(app, uri)).not.toBe(old);
          expect((await loadFile(app, `s3://${bucket}/m/none.safetensors`)).problem).toMatchObject({
            code: "invalid-model-file",
            detail: `Cannot load "s3://${bucket}/m/none.safetensors": it is not there`,
          });
          expect((await loadFile(app, servers.put("m/empty.safetensors", ""))).problem?.detail).toContain(
            "it is empty",
          );
        },
        optionsFor(which, credentials),
      )();
    });
  }

  for (const [what, credentials, said] of [
    [
      "a wrong secret",
      { ...signed, secretAccessKey: "another" },
      "with its credentials may not read it (403 SignatureDoesNotMatch)",
    ],
    [
      "a key that it does not know",
      { ...signed, accessKeyId: "OTHER" },
      "with its credentials may not read it (403 InvalidAccessKeyId)",
    ],
    ["no credentials", undefined, "the server, which has no credentials, may not read it (403 AccessDenied)"],
  ] as const) {
    test(`that checks signatures refuses ${what}, and the region is not there`, async () => {
      await withApp(
        async (app) => {
          const before = app.footprint();
          const { problem } = await loadFile(app, servers.put("m/tiny.safetensors", tiny));
          expect(problem).toMatchObject({ code: "io-error" });
          expect(problem?.detail).toContain(said);
          expect(problem?.hint).toContain("AWS_SECRET_ACCESS_KEY");
          expect(app.footprint()).toEqual(before);
        },
        optionsFor("signed", credentials),
      )();
    });
  }
});

/** Everything that files of a folder have in them. */
function contentOf(folder: string): string {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
    .map((path) => readFileSync(path, "latin1"))
    .join("\n");
}

testWith(needsStockPython, needsNodeClient)(
  "models of a bucket are there before the first worker, by the command line and by Node, and nothing tells the credentials",
  async () => {
    using folder = new ModelFolder();
    const uri = servers.put("m/l/model.safetensors", tiny);
    const preload = folder.write("models.yaml", `- { uri: "${uri}", model: llama, name: weights }\n`);
    await using server = new TestServer({
      env: {
        TENSORD_MODEL_ROOTS: roots.join(),
        TENSORD_PRELOAD: preload,
        TENSORD_LOG_LEVEL: "debug",
        AWS_ENDPOINT_URL: servers.signed,
        AWS_ACCESS_KEY_ID: accessKey,
        AWS_SECRET_ACCESS_KEY: secretKey,
      },
    });
    await server.start();
    const told: string[] = [];
    const command = async (...args: string[]) => {
      const { status, stdout, stderr } = await server.command(...args);
      told.push(stdout, stderr);
      return { status, stdout, stderr };
    };
    const [weights] = await server.api.list();
    expect(weights).toMatchObject({
      model: "llama",
      name: "weights",
      state: "sealed",
      labels: { "tensord.file": uri },
      owner: { kind: "persist" },
    });

    const loaded = await command("load", uri);
    expect(loaded.stdout).toStartWith(`loaded ${uri} to default/model, sealed, 2 tensors, `);
    expect((await command("ls")).stdout).toContain(uri);
    const refused = await command("load", `s3://${bucket}/m/none.gguf`);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain(`tensord: Cannot load "s3://${bucket}/m/none.gguf": it is not there`);

    const seen = await runProgram<unknown>(
      "node",
      { TENSORD_URL: `unix://${server.instance.socket}` },
      `
      const client = await connect();
      const region = await client.loadModel(${JSON.stringify(uri)});
      tell([region.name, [...region.tensor("b").bytes()], region.descriptor.labels]);
      client.close();
    `,
    );
    expect(seen).toEqual(["model", [16, 17, 18], { "tensord.file": uri }]);

    for (const path of [
      "/v1/regions",
      "/v1/operations",
      "/v1/models",
      "/v1/stats",
      "/v1/doctor",
      "/v1/capabilities",
      "/metrics",
    ]) {
      told.push(await (await fetch(`http://localhost${path}`, { unix: server.instance.socket })).text());
    }
    await server.stop();
    told.push(JSON.stringify(server.log.lines), server.log.errors, contentOf(server.instance.directory));
    const all = told.join("\n");
    expect(all).toContain(uri);
    for (const secret of [secretKey, encodeURIComponent(secretKey), accessKey, "X-Amz-", "Signature="]) {
      expect(all.includes(secret), `it tells ${secret}`).toBeFalse();
    }
  },
);
