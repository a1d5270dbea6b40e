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

/** GET and PUT of the same path, which have most failures in common. */
const directions = [
  { operationId: "readData", method: "GET", body: undefined },
  { operationId: "writeData", method: "PUT", body: bytes },
] as const;

type Ask = (app: TestApp, id: string, query?: string) => Promise<Answer>;

const inBoth = directions.flatMap(({ operationId, method, body }): FailureCase[] => {
  const ask: Ask = (app, id, query = "") => askInVain(app, method, `/v1/regions/${id}/data${query}`, body as Body);
  return [
    {
      operationId,
      code: "tensor-not-found",
      provoke: async (app) => ask(app, (await app.create({ byte_size: bytes.length })).id, "?tensor=other"),
    },
    {
      operationId,
      code: "region-busy",
      provoke: async (app) => {
        const creation = app.create({ byte_size: slowBytes });
        const id = await idInState(app, "creating");
        const answer = await app.request(method, `/v1/regions/${id}/data`, body);
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

const ofOne: readonly FailureCase[] = [
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

export const dataCases: readonly FailureCase[] = [...inBoth, ...ofOne];
