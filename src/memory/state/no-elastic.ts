/** What a server has that can have no elastic pools: none, of any model. */

import { TensordError } from "../error.ts";
import { quote } from "../naming.ts";
import type { Storages } from "../storage/storages.ts";
import type { Books } from "./books.ts";
import type { ElasticPools } from "./elastic.ts";

export function noElasticPools(books: Books, storages: Storages): ElasticPools {
  const absent = () => {
    throw new Error("there is no pool that this could be asked of");
  };
  return {
    create: async ({ model, deviceUuid }) => {
      books.model(model);
      storages.device(deviceUuid);
      return absent();
    },
    find: (model, deviceUuid) => {
      books.model(model);
      throw poolNotFound(model, deviceUuid);
    },
    findByToken: () => undefined,
    count: 0,
    after: () => [],
    change: absent,
    remove: absent,
    figures: absent,
    describe: absent,
    map: absent,
    unmap: absent,
    trim: absent,
    compact: absent,
    attachWorker: absent,
    refresh: absent,
    take: absent,
    letGo: absent,
    leave: absent,
    disconnected: absent,
    endSession: () => {},
    overdue: [],
    owed: [],
    stop: async () => {},
  };
}

export function poolNotFound(model: string, deviceUuid: string): TensordError {
  return new TensordError(
    "vmm-pool-not-found",
    `Cannot find an elastic pool: model ${quote(model)} has none on device ${quote(deviceUuid)}`,
    { model, device_uuid: deviceUuid, hint: "Make one, or list those that there are." },
  );
}
