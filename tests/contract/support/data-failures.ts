/** Each failure of the data plane that needs a world of its own. */

import { jest } from "bun:test";
import { limits } from "../../../src/memory/limits.ts";
import type { Answer } from "../../harness/answers.ts";
import { type Body, type TestApp, until } from "../../harness/app.ts";
import { readBytes, sendStream, writeBytes } from "./data-requests.ts";
import { askInVain, type FailureCase } from "./failure-case.ts";
import { Intruder, lease } from "./lease.ts";
import { idInState, slowBytes } from "./region-failures.ts";
import { unknownRegion } from "./requests.ts";

const bytes = Buffer.from("0123456789abcdef");

/** What they have most failures in common. */
const directions = [
  { operationId: "readData", method: "GET", suffix: "/data", body: undefined },
  { operationId: "writeData", method: "PUT", suffix: "/data", body: bytes },
  { operationId: "readFile", method: "GET", suffix: "/file/weights.safetensors", body: undefined },
] as const;

type Ask = (app: TestApp, id: string, query?: string) => Promise<Answer>;

const inBoth = directions.flatMap(({ operationId, method, suffix, body }): FailureCase[] => {
  const ask: Ask = (app, id, query = "") => askInVain(app, method, `/v1/regions/${id}${suffix}${query}`, body as Body);
  return [
    ...(suffix === "/data" ? [withoutTensor(operationId, ask)] : []),
    {
      operationId,
      code: "region-busy",
      provoke: async (app) => {
        const creation = app.create({ byte_size: slowBytes });
        const id = await idInState(app, "creating");
        const answer = await app.request(method, `/v1/regions/${id}${suffix}`, body);
        await creation;
        return answer;
      },
    },
    {
      operationId,
      code: "region-draining",
      provoke: async (app) => {
        const { id, storage } = await app.create({ byte_size: bytes.length });
        using _ = lease(storage.path);
        await app.remove(id);
        return await ask(app, id);
      },
    },
    {
      operationId,
      code: "io-error",
      provoke: async (app) => {
        const { id, storage } = await app.create({ byte_size: bytes.length });
        using intruder = new Intruder(storage.path);
        intruder.truncate(storage.byte_size - 1);
        return await ask(app, id);
      },
    },
    {
      operationId,
      code: "shutting-down",
      provoke: async (app) => {
        const { id } = await app.create({ byte_size: bytes.length });
        app.store.stop();
        return ask(app, id);
      },
    },
    { operationId, code: "validation-failed", provoke: (app) => ask(app, unknownRegion.repeat(3)) },
  ];
});

function withoutTensor(operationId: string, ask: Ask): FailureCase {
  const provoke = async (app: TestApp) => ask(app, (await app.create({ byte_size: bytes.length })).id, "?tensor=other");
  return { operationId, code: "tensor-not-found", provoke };
}

/** What has no name any more, because it drains, is not found there. */
const fileByName = "/v1/models/default/regions/weights/file/weights.safetensors";
const byName: readonly FailureCase[] = [
  {
    operationId: "readFileByName",
    code: "region-not-found",
    provoke: (app) => askInVain(app, "GET", fileByName),
  },
  {
    operationId: "readFileByName",
    code: "region-busy",
    provoke: async (app) => {
      const creation = app.create({ name: "weights", byte_size: slowBytes });
      await idInState(app, "creating");
      const answer = await app.request("GET", fileByName);
      await creation;
      return answer;
    },
  },
  {
    operationId: "readFileByName",
    code: "io-error",
    provoke: async (app) => {
      const { storage } = await app.create({ name: "weights" });
      using intruder = new Intruder(storage.path);
      intruder.truncate(storage.byte_size - 1);
      return await askInVain(app, "GET", fileByName);
    },
  },
  {
    operationId: "readFileByName",
    code: "shutting-down",
    provoke: async (app) => {
      await app.create({ name: "weights" });
      app.store.stop();
      return askInVain(app, "GET", fileByName);
    },
  },
];

const ofOne: readonly FailureCase[] = [
  {
    operationId: "readFile",
    code: "range-not-satisfiable",
    provoke: async (app) => {
      const path = `/v1/regions/${(await app.create()).id}/file/weights.safetensors`;
      return app.request("GET", path, undefined, { headers: { range: "bytes=9999-" } });
    },
  },
  {
    operationId: "readFileByName",
    code: "range-not-satisfiable",
    provoke: async (app) => {
      await app.create({ name: "weights" });
      return app.request("GET", fileByName, undefined, { headers: { range: "bytes=-0" } });
    },
  },
  {
    operationId: "readData",
    code: "range-not-satisfiable",
    provoke: async (app) => readBytes(app, (await app.create()).id, { headers: { range: "bytes=64-" } }),
  },
  {
    operationId: "writeData",
    code: "range-not-satisfiable",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: bytes.length });
      return writeBytes(app, id, bytes, { headers: { "content-range": "bytes 1-16/*" } });
    },
  },
  {
    operationId: "writeData",
    code: "region-sealed",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: bytes.length });
      await app.seal(id);
      return writeBytes(app, id, bytes);
    },
  },
  {
    operationId: "writeData",
    code: "payload-too-large",
    provoke: async (app) => writeBytes(app, (await app.create({ byte_size: 15 })).id, bytes),
  },
  {
    operationId: "writeData",
    code: "unsupported-media-type",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: bytes.length });
      return writeBytes(app, id, bytes, { headers: { "content-encoding": "gzip" } });
    },
  },
  {
    operationId: "writeData",
    code: "cancelled",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: bytes.length });
      const upload = sendStream(app, id);
      upload.send(bytes.subarray(0, 8));
      await until("the upload is a writer", async () => (await app.get(id)).has_writers);
      await app.remove(id);
      upload.send(bytes.subarray(8));
      return upload.answer;
    },
  },
  {
    operationId: "writeData",
    code: "deadline-exceeded",
    provoke: async (app) => {
      const { id } = await app.create({ byte_size: bytes.length });
      jest.useFakeTimers();
      try {
        const upload = sendStream(app, id);
        while (!upload.isAsked) await Promise.resolve();
        jest.advanceTimersByTime(limits.uploadStallMs - 1);
        if (upload.isCancelled) throw new Error("the upload was ended early");
        jest.advanceTimersByTime(1);
        return await upload.answer;
      } finally {
        jest.useRealTimers();
      }
    },
  },
];

export const dataCases: readonly FailureCase[] = [...inBoth, ...byName, ...ofOne];
