/** The files of long lists of tensors are deleted or damaged while no server runs: headers of regions give them back. */

import { afterAll, expect } from "bun:test";
import { closeSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { assertNothingLeft, tokenOf } from "../harness/instance.ts";
import { checkBooks } from "../harness/instance-check.ts";
import { testWith } from "../harness/instance-needs.ts";
import { startServer } from "../harness/server.ts";
import type { Region } from "../harness/server-api.ts";
import { listFiles, manyTensors } from "./list-scenarios.ts";
import { forgetStore, hour } from "./lost-store-regions.ts";

afterAll(assertNothingLeft);

const byName = ({ tensors }: Region) => tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));

testWith()("a list that was deleted, cut or emptied is read from its region's header, and is there again", async () => {
  await using server = await startServer();
  const regions: Region[] = [];
  for (const name of ["deleted", "cut", "emptied", "whole"]) {
    regions.push(await server.api.create({ name, tensors: manyTensors, ttl_ms: hour }));
  }
  const [deleted, cut, emptied, whole] = regions as [Region, Region, Region, Region];
  const pathOf = ({ id }: Region) => `${server.instance.store}/tensors/${tokenOf(id)}`;
  await server.kill("SIGKILL");
  rmSync(pathOf(deleted));
  truncateSync(pathOf(cut), 10_000);
  truncateSync(pathOf(emptied), 0);
  // Of a region that was never entered.
  writeFileSync(`${server.instance.store}/tensors/${"a".repeat(26)}`, "[]");
  server.log.expect(/was lost; its header gives it back/);
  await server.start();
  for (const region of regions) {
    const found = await server.api.get(region.id);
    expect(byName(found)).toEqual(byName(region));
    expect(found).toMatchObject({ name: region.name, revision: region.revision, tensor_count: manyTensors.length });
  }
  expect((await server.api.get(whole.id)).tensors, "a list that is whole keeps its order").toEqual(whole.tensors);
  expect(listFiles(server.instance).toSorted()).toEqual(regions.map(({ id }) => tokenOf(id)).toSorted());
  await checkBooks(server);
});

testWith()(
  "a lost list whose region's header was overwritten leaves the region, with one tensor of all its data",
  async () => {
    await using server = await startServer();
    const { id, storage, tensors } = await server.api.create({ name: "new", tensors: manyTensors, ttl_ms: hour });
    await server.kill("SIGKILL");
    rmSync(`${server.instance.store}/tensors/${tokenOf(id)}`);
    const fd = openSync(storage.path, "r+");
    writeSync(fd, "overwritten", 8);
    closeSync(fd);
    server.log.expect(/was lost, and its header|Cannot read the header/);
    await server.start();
    const found = await server.api.get(id);
    const dataOffset = Math.min(...tensors.map(({ byte_offset }) => byte_offset));
    const byteSize = storage.byte_size - dataOffset;
    expect(found).toMatchObject({ name: "new", state: "open", tensor_count: 1 });
    expect(found.tensors).toMatchObject([{ name: "data", byte_offset: dataOffset, byte_size: byteSize }]);
    expect(await server.api.delete(id)).toMatchObject({ state: "deleted" });
  },
);

testWith()(
  "regions of many tensors are adopted with all of them when the store is lost, over the next start too",
  async () => {
    await using server = await startServer();
    const region = await server.api.create({ name: "many", tensors: manyTensors, persist: true });
    await server.stop();
    forgetStore(server);
    for (let start = 0; start < 2; start++) {
      await server.start();
      const found = await server.api.get(region.id);
      expect(byName(found)).toEqual(byName(region));
      expect(found.labels).toEqual({ "tensord.recovered": "true" });
      expect(listFiles(server.instance)).toEqual([tokenOf(region.id)]);
      await checkBooks(server);
      await server.kill("SIGKILL");
    }
    await server.start();
  },
);
