/** Mistakes in the bell of a ring, on both sides of it. */

const python = "clients/python/src/tensord/_ring";
const pythonTest = "clients/python/tests/test_ring_bell.py";
const node = "clients/node/src";

export const ringsMutations = [
  {
    name: "Node's bell: a message is opened though its slot holds something else",
    file: `${node}/rings/opened-ring.ts`,
    find: "    const isMeant = () => Atomics.load(this.#generations, index) === BigInt(generation);\n",
    replace: "    const isMeant = () => generation > 0;\n",
    test: ["tests/integration/node-client-bell.test.ts", "node: what is sent is received in order"],
  },
  {
    name: "Node's bell: a request is taken twice",
    file: `${node}/rings/opened-ring.ts`,
    find: "    Atomics.store(this.#longs, record + 1, generation);\n",
    replace: "",
    test: ["tests/integration/node-client-bell.test.ts", "neither tears anything"],
  },
  {
    name: "Node's bell: nobody asks whether the owner lives",
    file: `${node}/rings/opened-ring.ts`,
    find: "    return isLockedElsewhere(this.#locks.fd, ownerByte, 1n);\n",
    replace: "    return true;\n",
    test: ["tests/integration/node-client-bell.test.ts", "neither tears anything"],
  },
  {
    name: "Python's bell: a message is opened though its slot holds something else",
    file: `${python}/opened_ring.py`,
    find: "            if self.longs[WORDS_START // 8 + index] == generation:\n                outcome =",
    replace: "            if generation > 0:\n                outcome =",
    test: [pythonTest, "test_who_is_slow_loses_the_oldest"],
  },
];
