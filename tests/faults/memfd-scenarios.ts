/** Operations on regions in `memfd` storage in flight when the server dies, those of its fd holder among them. */

import { expect } from "bun:test";
import { type MemfdContent, readMemfd, writeMemfd } from "../harness/instance-memfd.ts";
import type { TestServer } from "../harness/server.ts";
import { at, hour, type Scenario } from "./scenario.ts";

const seals = { open: ["shrink", "grow"], final: ["shrink", "grow", "write"] };

/** The first one: with it the fd holder is started. */
const creating: Scenario = {
  claim: "the creation of a memfd region, the first one",
  isFirst: true,
  kills: at(
    "create.header-written",
    "holder.started",
    "holder.lock-sent",
    "holder.owned",
    "holder.kept",
    "create.kept",
    "create.journaled",
    "create.published",
  ),
  prepare: async () => {
    let server: TestServer;
    return {
      act: (running) => {
        server = running;
        return server.api.create({ name: "new", storage: "memfd", byte_size: 100_000, persist: true });
      },
      check: async (api, { step }) => {
        const found = await api.findByName("new");
        const isWhole = ["create.journaled", "create.published"].includes(step);
        expect(found !== undefined, `after ${step} it is ${isWhole ? "whole" : "not there"}`).toBe(isWhole);
        if (found !== undefined) {
          expect(found).toMatchObject({ state: "open", revision: 1, storage: { kind: "memfd", path: null } });
          writeMemfd(found, server, 9);
          expect((await api.seal(found.id, { checksum: true })).state).toBe("sealed");
          expect(readMemfd(found, server)).toMatchObject({ ino: found.storage.ino, seals: seals.final });
          expect(await api.delete(found.id)).toMatchObject({ state: "deleted" });
        }
        const next = await api.create({ name: "new", storage: "memfd", byte_size: 1, ttl_ms: hour });
        expect(await api.delete(next.id)).toMatchObject({ state: "deleted" });
      },
    };
  },
};

/** The kernel's seal is not undone, so one that was cut after it leaves an open region whose bytes are final. */
const sealing: Scenario = {
  claim: "a seal of a memfd region",
  kills: at("seal.mode-set", "seal.made-final", "seal.hashed", "seal.journaled"),
  prepare: async (api) => {
    const region = await api.create({ name: "new", storage: "memfd", byte_size: 100_000, persist: true });
    let server: TestServer;
    let content: MemfdContent;
    return {
      act: (running) => {
        server = running;
        writeMemfd(region, server, 3);
        content = readMemfd(region, server);
        return server.api.seal(region.id, { checksum: true });
      },
      check: async (_, { step }) => {
        const isSealed = step === "seal.journaled";
        expect((await api.get(region.id)).state).toBe(isSealed ? "sealed" : "open");
        const isFinal = isSealed || step === "seal.made-final" || step === "seal.hashed";
        const { ino, hash, byteSize } = content;
        expect(readMemfd(region, server)).toMatchObject({
          ...{ ino, hash, byteSize, mode: isSealed ? 0o1400 : 0o600 },
          seals: isFinal ? seals.final : seals.open,
        });
        if (!isSealed) expect((await api.seal(region.id, { checksum: true })).state).toBe("sealed");
        expect((await api.verify(region.id)).ok).toBeTrue();
        expect(readMemfd(region, server)).toMatchObject({ hash, seals: seals.final });
      },
    };
  },
};

const deleting: Scenario = {
  claim: "the deletion of a memfd region",
  kills: at("delete.asked", "holder.dropped", "delete.keeper-unlinked", "delete.row-deleted"),
  prepare: async (api) => {
    const region = await api.create({ name: "new", storage: "memfd", byte_size: 100_000, persist: true });
    return {
      act: (server) => server.api.delete(region.id),
      check: async () => {
        // The row says so since the first step, so the start goes on with it.
        await api.untilGone(region.id);
        expect(await api.findByName("new")).toBeUndefined();
      },
    };
  },
};

export const memfdScenarios: readonly Scenario[] = [creating, sealing, deleting];
