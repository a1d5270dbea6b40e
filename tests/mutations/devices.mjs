/** Mistakes in what is told of devices, in a start beside a driver that takes its time, and in what is left of calls that are late. */

const contract = "tests/contract/devices.test.ts";
const start = "tests/faults/device-start.test.ts";
const judge = "tests/unit/judge-device.test.ts";
const former = "handed out and freed while the driver hangs";

export const deviceMutations = [
  {
    name: "a device in compute mode prohibited is used",
    file: "src/cuda/judge-device.ts",
    find: 'if (computeMode === "prohibited") {',
    replace: 'if (computeMode === "") {',
    test: [judge, "compute-mode-prohibited"],
  },
  {
    name: "the whole GPU of instances of MIG is not told as divided",
    file: "src/cuda/judge-device.ts",
    find: "if (instances.length > 0) {",
    replace: "if (instances.length > 8) {",
    test: [judge, "mig-parent"],
  },
  {
    name: "a GPU whose UUID the kernel does not know yet is there twice",
    file: "src/cuda/merge-devices.ts",
    find: "return uuid === null ? !isMig(one) && busId.toLowerCase() === one.busId : uuid === one.uuid;",
    replace: "return uuid === one.uuid;",
    test: [judge, "are one by their address"],
  },
  {
    name: "the pool of a device that is asked for comes to be",
    file: "src/routes/devices.ts",
    find: "const pool = [...pools.all].find((one) => one.name === uuid);",
    replace: 'const pool = pools.get(uuid ?? "");',
    test: [contract, "without NVML"],
  },
  {
    name: "nobody says that a driver has yet to answer",
    file: "src/memory/storage/storages.ts",
    find: "if (this.#awaited !== undefined) throw notYet(what, this.#awaited);",
    replace: "",
    test: [contract, "asked for in vain with 503"],
  },
  {
    name: "a device that is found late has no pool",
    file: "src/memory/start/awaited-devices.ts",
    find: "pool.limitBytes = limitBytes;",
    replace: "",
    test: [start, former],
  },
  {
    name: "the size of a device's pieces, told late, changes no charge",
    file: "src/memory/start/awaited-devices.ts",
    find: "if (chargedBytes !== region.chargedBytes) store.books.recharge(region, chargedBytes);",
    replace: "",
    test: [start, former],
  },
  {
    name: "the last descriptor of memory is closed behind the driver's calls",
    file: "src/cuda/device-lane.ts",
    find: 'await this.#closing.run({ kind: "close", fd });',
    replace: 'await this.#queue.run({ kind: "start" }).then(() => closeSync(fd));',
    test: [start, former],
  },
  {
    name: "a device of an earlier server that the driver refuses is still said to be asked",
    file: "src/cuda/device-host.ts",
    find: "for (const state of states.values()) state.withhold({ isForNow: false, reason: message });",
    replace: "",
    test: [start, "does not start any more"],
  },
];
