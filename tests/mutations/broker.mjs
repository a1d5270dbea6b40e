/** Mistakes of the broker: who is let go on, what is handed out, and what counts as somebody's end. */

const broker = "src/server/broker";

export const brokerMutations = [
  {
    name: "a ticket outlives the change of its region",
    file: `${broker}/tickets.ts`,
    find: "    Atomics.add(this.#numbers, place, 1);\n",
    replace: "",
    test: ["tests/contract/broker-tickets.test.ts", "is described as it is now"],
  },
  {
    name: "the broker's Worker hands out nothing by itself",
    file: `${broker}/broker-poll.ts`,
    find: `    if (entry.reach !== "none" && this.#handOut(slot, entry, frame)) return;\n`,
    replace: "",
    test: ["tests/contract/broker-tickets.test.ts", "is handed out again while the event loop is held"],
  },
  {
    name: "a message with descriptors is taken",
    file: `${broker}/broker-poll.ts`,
    find: "const frame = isCut || isShort ? mistake : parseFrame(bytes);",
    replace: "const frame = isCut ? mistake : parseFrame(bytes);",
    test: ["tests/contract/broker-connections.test.ts", "descriptors, which are opened by nobody here"],
  },
  {
    name: "a region is handed out without a lease",
    file: "src/memory/regions/hand-out.ts",
    find: `tryLease(fd, lease, access === "write")`,
    replace: "fd >= 0",
    test: ["tests/contract/broker.test.ts", "comes with lease locked"],
  },
  {
    name: "a session ends where the server ended its connection to the broker",
    file: `${broker}/broker.ts`,
    find: `this.#close(connection, event.ending.kind === "peer" ? "peer" : "server");`,
    replace: `this.#close(connection, "peer");`,
    test: ["tests/contract/broker-connections.test.ts", "a session that it held has its TTL"],
  },
  {
    name: "an answer that has no room is lost",
    file: `${broker}/broker.ts`,
    find: `    if (sending === "full") return "full";\n`,
    replace: "",
    test: ["tests/contract/broker-connections.test.ts", "is answered in order once it reads"],
  },
  {
    name: "pages whose answer was not sent stay with the worker",
    file: `${broker}/pool-desk.ts`,
    find: "    opened.defer(() => isSent || takeBack());\n",
    replace: "",
    test: ["tests/contract/broker-pools.test.ts", "an answer that was not sent is taken back"],
  },
  {
    name: "a worker of an elastic pool is connected for ever",
    file: `${broker}/pool-desk.ts`,
    find: "    for (const worker of this.#workers.values()) this.#store.elastic.disconnected(worker);\n",
    replace: "",
    test: ["tests/contract/broker-pools.test.ts", "keep what a worker has whose connection has ended"],
  },
  {
    name: "a reader attaches to an elastic pool",
    file: `${broker}/pool-desk.ts`,
    find: `    checkRole(caller, "attachToElasticPool");\n`,
    replace: "",
    test: ["tests/contract/broker-pools.test.ts", "what a reader may not attach to is forbidden"],
  },
];
