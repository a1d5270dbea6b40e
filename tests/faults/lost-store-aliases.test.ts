/** The store is lost, and a region's own file gives its aliases back; or, where a worker spoilt their text, all but them. */

import { afterAll, expect } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import { until } from "../harness/server-wait.ts";
import { forgetStore, hour, relinked } from "./lost-store-regions.ts";

afterAll(assertNothingLeft);

const tied = [
  { name: "embedding", dtype: "F32" as const, shape: [4, 2] },
  { name: "head", dtype: "F32" as const, shape: [4, 2], alias_of: "embedding" },
  { name: "row", dtype: "F32" as const, shape: [2], alias_of: "embedding", alias_byte_offset: 8 },
];

testWith()("aliases are back without the store; of a spoilt list the tensors are, and the log says so", async () => {
  await using server = await startServer();
  server.log.expect(relinked, /^Cannot bring back the aliases of [a-z2-7]{26}; its other tensors are back/);
  const whole = await server.api.create({ name: "whole", tensors: tied, persist: true });
  const spoilt = await server.api.create({ name: "spoilt", tensors: tied, ttl_ms: hour });
  const file = readFileSync(spoilt.storage.path);
  // Between two elements.
  const offset = String.raw`byte_offset\":8`;
  file.write("9", file.indexOf(offset) + offset.length - 1);
  writeFileSync(spoilt.storage.path, file);
  await server.stop();
  forgetStore(server);
  await server.start();
  const again = await server.api.get(whole.id);
  expect(again).toMatchObject({ name: "whole", storage: whole.storage, tensors: whole.tensors });
  const { name, tensors } = await server.api.get(spoilt.id);
  expect(name).toBe("spoilt");
  expect(tensors).toEqual(spoilt.tensors.slice(0, 1));
  const line = await until("the log says so", () => server.log.find(/aliases/));
  expect(line.msg).toContain(tokenOf(spoilt.id));
});
