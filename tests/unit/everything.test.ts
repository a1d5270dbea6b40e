/**
 * What people must be able to do with shared tensors, line by line, and the operation of the document, the call of a client, or the
 * failure that does each: all of them exist. What the clients have is read from docs/clients-parity.md, which a test compares with
 * them.
 */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { failures } from "../../src/memory/error.ts";
import { settings } from "../../src/server/config.ts";
import { operations } from "../harness/answers.ts";
import { root } from "../harness/repository.ts";

/** An operationId, a name of the parity table's Python or Node column, a failure's code, or a setting. */
type Way = `op ${string}` | `py ${string}` | `node ${string}` | `code ${string}` | `setting ${string}`;

const both = (python: string, node: string): Way[] => [`py ${python}`, `node ${node}`];

const lists: Readonly<Record<string, Readonly<Record<string, readonly Way[]>>>> = {
  "a shared buffer": {
    create: ["op createRegion", ...both("Client.create", "Client.create")],
    open: ["op getRegionByName", ...both("Client.attach", "Client.attach")],
    "open read-only": ["op getRegion", ...both("Client.attach", "AccessOptions"), "py Client.open"],
    "tensor metadata": [...both("Tensor.dtype", "Tensor.dtype"), ...both("Tensor.shape", "Tensor.shape")],
    "tensor data, read-only": ["op readData", ...both("Tensor.numpy", "Tensor.array")],
    "tensor data, mutable": [...both("Tensor.writable", "Tensor.isWritable")],
    "write a typed tensor": ["op writeData", ...both("create_shared_tensor", "Client.create")],
    "read a typed tensor": [...both("attach_shared_tensor", "Tensor.bytes")],
    "update a checksum": ["op sealRegion", ...both("Region.seal", "Region.seal")],
    "verify a checksum": ["op verifyRegion", ...both("Client.verify", "Client.verify")],
    flush: ["op flushRegion", ...both("Region.flush", "Region.flush")],
    path: [...both("PathHold.path", "PathHold.path")],
    size: [...both("Tensor.byte_size", "Tensor.byteSize")],
    "refuse a wrong magic or version": ["code unsupported-format", "code validation-failed"],
    "refuse wrong bounds": ["code invalid-model-file", "code range-not-satisfiable"],
  },
  "a pool of buffers": {
    "base directory": ["setting TENSORD_SHM_DIR"],
    "maximum size": ["setting TENSORD_MEMORY_LIMIT_BYTES"],
    register: ["op createRegion"],
    get: ["op getRegionByName", ...both("Client.get", "Client.get")],
    remove: ["op deleteRegionByName", ...both("Client.delete", "Client.delete")],
    list: ["op listRegions", ...both("Client.list", "Client.list")],
    "memory in use and available": ["op getStats", ...both("Client.stats", "Client.stats")],
    "it is full": ["code pool-full"],
  },
  "an allocator": {
    "a quota per session": ["op openSession", "code session-quota-exceeded", "py Session", "node SessionOptions"],
    "a total limit": ["op getStats", "code pool-full"],
    "cleanup by TTL, which reports regions and bytes": ["op changeRegion", "op endSession", "op listEvents"],
    "metrics of allocations": ["op getMetrics"],
    "detection of what there is": ["op getCapabilities", "op listDevices", ...both("Client.devices", "Client.devices")],
    "fallback where shared memory is missing": ["op writeData", "setting TENSORD_STORAGES"],
  },
  "a tensor buffer": {
    "from an existing region": [...both("Client.open", "Client.open"), "py TensorReference", "node TensorReference"],
    "from a vector": [...both("Client.create", "Client.create")],
    "from and to numpy without a copy": ["py Tensor.numpy", "py Region.numpy"],
    "for torch": ["py Tensor.torch", "py Region.state_dict", "py torch.share_module"],
    DLPack: ["py Tensor.torch"],
    "the reference": [...both("Tensor.ref", "Tensor.ref")],
  },
  "model data": {
    "open by mmap": ["op loadModel", ...both("Client.load_model", "Client.loadModel"), "setting TENSORD_MODEL_ROOTS"],
    "from decompressed bytes": ["op loadModel", ...both("Client.load", "Client.load")],
    "as bytes": ["op readFile", ...both("Tensor.bytes", "Tensor.bytes")],
    "length, emptiness": [...both("Tensor.byte_size", "Tensor.byteSize")],
    "is it mapped": [
      "op getRegion",
      ...both("OperationDescriptor", "OperationDescriptor"),
      ...both("Region.closed", "Region.isClosed"),
    ],
    "advise sequential": [...both("Region.advise", "Region.advise")],
    "release pages after the transfer to a GPU": ["op adviseRegion", ...both("Region.advise", "Region.advise")],
    "what is in memory": [...both("Region.resident_bytes", "Region.residentBytes"), ...both("Residency", "Residency")],
    "errors that name the path": ["code invalid-model-file", "code io-error"],
  },
  "a pool of virtual memory": {
    "reserve a capacity": ["op createElasticPool", ...both("Client.pool", "Client.pool")],
    "a page's size, checked": ["code invalid-page-size"],
    "allocate at an offset": ["op mapPages", "code out-of-range", "code already-mapped"],
    "deallocate a range": ["op unmapPages", "code not-mapped"],
    "physical use, capacity, base address, page size": ["op getElasticPool", "py cuda.Pool"],
    "is a range mapped": ["op getElasticPool"],
    compact: ["op compactPool"],
    statistics: ["op listElasticPools", ...both("Client.pools", "Client.pools")],
  },
  "a pool keyed by model": {
    register: ["op registerModel", ...both("Client.register_model", "Client.registerModel")],
    unregister: ["op unregisterModel", ...both("Client.unregister_model", "Client.unregisterModel")],
    "allocate and deallocate for a model": ["op createRegion", "op deleteRegion", "op mapPages", "op unmapPages"],
    "statistics of a model": ["op getModel", ...both("Client.model", "Client.model")],
    "statistics of all": ["op getStats"],
    "a physical limit over all": ["code out-of-device-memory", "setting TENSORD_MEMORY_LIMIT_BYTES"],
    "unknown model": ["code model-not-found"],
    "existing model": ["code model-exists"],
    "out of physical memory": ["code out-of-shared-memory", "code out-of-device-memory"],
    "bad offset": ["code out-of-range"],
    "already mapped, not mapped": ["code already-mapped", "code not-mapped"],
  },
  "Python in one line": {
    "create by name": ["py create_shared_tensor"],
    "attach by name": ["py attach_shared_tensor", "py attach"],
    "a name collision is an error": ["code name-taken"],
    "cleanup by a context manager": ["py Region.close", "py Client.close"],
    "read-write locks": [
      "py Tensor.lock_read",
      "py Tensor.lock_write",
      "node Tensor.lockRead",
      "node Tensor.lockWrite",
    ],
    pooling: ["py Client.ring", "py Ring", "node Client.ring"],
  },
};

const [python, node] = readParity();
const known: Readonly<Record<string, ReadonlySet<string>>> = {
  op: new Set(operations.map(({ operationId }) => operationId)),
  py: python,
  node,
  code: new Set(Object.keys(failures)),
  setting: new Set(Object.values(settings).map(({ variable }) => variable)),
};

/** The names of both columns. */
function readParity(): readonly [Set<string>, Set<string>] {
  const columns = [new Set<string>(), new Set<string>()] as const;
  for (const line of readFileSync(join(root, "docs/clients-parity.md"), "utf8").split("\n")) {
    const cells = line.split("|");
    for (const [index, column] of columns.entries()) {
      for (const [, name = ""] of (cells[index + 2] ?? "").matchAll(/`([^`]+)`/g)) column.add(name);
    }
  }
  return columns;
}

for (const [list, lines] of Object.entries(lists)) {
  describe(list, () => {
    for (const [line, ways] of Object.entries(lines)) {
      test(line, () => {
        expect(ways.length).toBeGreaterThan(0);
        const missing = ways.filter((way) => {
          const [kind = "", name = ""] = way.split(" ");
          return known[kind]?.has(name) !== true;
        });
        expect(missing).toEqual([]);
      });
    }
  });
}
