/** Loads from S3 that a dying server cuts: nothing of them is left, neither memory nor a connection, and the object can be loaded again. */

import { afterAll, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { fileLimits } from "../../src/loaders/limits.ts";
import { assertNothingLeft } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { safetensorsFile } from "../harness/model-files.ts";
import { bucket, S3Service } from "../harness/s3-service.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";

afterAll(assertNothingLeft);

interface Operation {
  readonly id: string;
  readonly region: string | null;
  readonly ended_at: string | null;
}

const data = Buffer.alloc(
  fileLimits.objectRangeBytes + 100_000,
  Buffer.from(Array.from({ length: 239 }, (_, at) => at)),
);
const header = { w: { dtype: "U8", shape: [data.length], data_offsets: [0, data.length] } };
const content = safetensorsFile(JSON.stringify(header), data);

testWith()("a server that is killed, or stopped, in the middle of a load leaves nothing of it", async () => {
  await using service = await S3Service.start();
  const uri = service.put("w.safetensors", content);
  await using server = await startServer({
    env: { TENSORD_MODEL_ROOTS: `s3://${bucket}`, AWS_ENDPOINT_URL: service.endpoint },
  });
  const begin = () => server.api.call<Operation>("POST", "/v1/models/default/load", { uri, persist: true });
  for (const end of ["kill", "stop"] as const) {
    service.asked.length = 0;
    // One of its two ranges comes, the other one not to its end.
    service.behave = (asked, answer) =>
      asked.number < 3
        ? answer
        : {
            ...answer,
            headers: { ...answer.headers, "content-length": String(answer.body.length) },
            body: answer.body.slice(0, 1000) as typeof answer.body,
            end: "stall",
          };
    await begin();
    await until("it waits for the rest", () => service.asked.length >= 3);
    if (end === "kill") await server.crash();
    else {
      await server.stop();
      await server.start();
    }
    await until("its connections are closed", () => service.connections === 0);
    expect(await server.api.list()).toEqual([]);
  }
  service.behave = undefined;
  const { id } = await begin();
  const region = await until("the load has ended", async () => {
    const { ended_at, region: made } = await server.api.call<Operation>("GET", `/v1/operations/${id}`);
    return ended_at !== null && (made ?? "failed");
  });
  expect(readFileSync((await server.api.get(region)).storage.path).equals(content)).toBeTrue();
  expect(await server.api.verify(region)).toMatchObject({ ok: true });
});
