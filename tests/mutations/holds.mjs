/** Mistakes in how a client is there at all: what holds its session, which token it sends, and where its regions are made. */

const python = "clients/python/src/tensord";
const node = "clients/node/src";
const byPython = (claim) => ["clients/python/tests/test_hold_broker.py", claim];
const byNode = (claim) => ["tests/integration/node-client-hold-broker.test.ts", claim];

export const holdsMutations = [
  {
    name: "reports to the broker are thrown away",
    file: "src/server/broker/conversation.ts",
    find: "for (const report of reports) if (this.#isHolding(session)) takeReport(",
    replace: "for (const report of reports) if (!this.#isHolding(session)) takeReport(",
    test: ["tests/contract/broker.test.ts", "says by reports what is mapped"],
  },
  {
    name: "Python has no session where no WebSocket comes through",
    file: `${python}/_session/ways.py`,
    find: "        if held.is_unfit and self._by is None:\n            self.at_broker = True\n",
    replace: "        if held.is_unfit and self._by is None:\n            self.at_broker = False\n",
    test: byPython("where_no_websocket_comes_through"),
  },
  {
    name: "Python goes on with a token that was issued before a restart",
    file: `${python}/_transport/transport.py`,
    find: "if status == 401 and not renewed and self.renew_token is not None:",
    replace: "if status == 401 and token is None and not renewed and self.renew_token is not None:",
    test: byPython("known_by_a_uid"),
  },
  {
    name: "Node does not see that the broker's server has ended",
    file: `${node}/session/hold-broker.ts`,
    find: "setInterval(() => this.#look(), lookMs)",
    replace: "setInterval(() => {}, lookMs)",
    test: byNode("node it outlives restarts"),
  },
  {
    name: "Node goes on with a token that was issued before a restart",
    file: `${node}/session/session.ts`,
    find: "  return token === undefined || token === refused;",
    replace: "  return token === undefined;",
    test: byNode("node who is known by a uid"),
  },
  {
    name: "Node keeps a connection to the broker over which hello was refused",
    file: `${node}/broker/broker-connection.ts`,
    find: "      this.close();\n      throw error;\n    }\n  }\n\n  /** Reads what there is",
    replace: "      throw error;\n    }\n  }\n\n  /** Reads what there is",
    test: ["tests/integration/node-client-broker-access.test.ts", "node: a token that is taken away"],
  },
  {
    name: "Python makes in heap storage what was asked to be of something else",
    file: `${python}/_region/make.py`,
    find: "    if not _FORMS.isdisjoint(body):\n",
    replace: '    if "device_uuid" in body:\n',
    test: ["clients/python/tests/test_heap_elsewhere.py", "made_in_heap_storage"],
  },
  {
    name: "Node finds out again and again that it shares no memory",
    file: `${node}/regions/make-region.ts`,
    find: "    api.sharesNoMemory = true;\n",
    replace: "    api.sharesNoMemory = false;\n",
    test: ["tests/integration/node-client-heap-elsewhere.test.ts", "node: what it makes"],
  },
];
