/** A descriptor that is handed out, with its lease, when the server dies. */

import { expect } from "bun:test";
import { statSync } from "node:fs";
import { BrokerClient } from "../harness/broker-client.ts";
import { readContent, writeContent } from "../harness/instance-content.ts";
import { listSessions } from "../harness/instance-sessions.ts";
import { NoAnswer } from "../harness/server-api.ts";
import { until } from "../harness/server-wait.ts";
import { at, hour, type Scenario } from "./scenario.ts";

export const brokerScenarios: readonly Scenario[] = [
  {
    claim: "a descriptor's way to a client that holds a session",
    kills: at("hand-out.opened", "hand-out.locked", "hand-out.sent"),
    prepare: async (api) => {
      const region = await api.create({ name: "new", byte_size: 10_000, persist: true });
      writeContent(region, 1);
      await api.seal(region.id, { checksum: true });
      const before = readContent(region.storage.path);
      let client: BrokerClient | undefined;
      let descriptors: readonly number[] = [];
      return {
        act: async (server) => {
          client = await BrokerClient.open(server.instance.broker, { session: { name: "held", ttl_ms: hour } });
          client.send(JSON.stringify({ id: 1, op: "attach", region: region.id, access: "ro" }));
          const received = await client.receive();
          // What had left before the server died can be read.
          if (received === "closed") throw new NoAnswer("the connection is closed");
          descriptors = received.descriptors;
        },
        check: async (after, { isAcknowledged }) => {
          expect((await after.verify(region.id)).ok).toBeTrue();
          expect(readContent(region.storage.path)).toEqual(before);
          const held = (await listSessions(after)).filter(({ name }) => name === "held");
          expect(held, "its TTL runs").toMatchObject([{ held: false, ttl_ms: hour }]);
          // The lease is the client's: neither the server's death nor its start ends it.
          expect((await after.get(region.id)).in_use).toBe(isAcknowledged);
          const { ino } = statSync(region.storage.path);
          for (const fd of descriptors) expect(statSync(`/proc/self/fd/${fd}`).ino).toBe(ino);
          client?.close();
          await until("nobody leases it", async () => !(await after.get(region.id)).in_use);
          await after.delete(region.id);
        },
      };
    },
  },
];
