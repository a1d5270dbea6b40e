/** Every mutation that `npm run mutations` tries; each must make the test fail that it names. */

import { accessMutations } from "./access.mjs";
import { booksMutations } from "./books.mjs";
import { brokerMutations } from "./broker.mjs";
import { bytesMutations } from "./bytes.mjs";
import { clientsMutations } from "./clients.mjs";
import { copiesMutations } from "./copies.mjs";
import { deviceMutations } from "./devices.mjs";
import { doorMutations } from "./door.mjs";
import { elasticMutations } from "./elastic.mjs";
import { enginesMutations } from "./engines.mjs";
import { holderMutations } from "./holder.mjs";
import { holdsMutations } from "./holds.mjs";
import { journalMutations } from "./journal.mjs";
import { modelsMutations } from "./models.mjs";
import { objectsMutations } from "./objects.mjs";
import { ownersMutations } from "./owners.mjs";
import { podMutations } from "./pod.mjs";
import { regionsMutations } from "./regions.mjs";
import { ringsMutations } from "./rings.mjs";
import { unnamedMutations } from "./unnamed.mjs";

/** @type {import("../../scripts/lib/mutations.mjs").Mutation[]} */
export const mutations = [
  ...regionsMutations,
  ...ownersMutations,
  ...booksMutations,
  ...journalMutations,
  ...holderMutations,
  ...bytesMutations,
  ...unnamedMutations,
  ...accessMutations,
  ...doorMutations,
  ...deviceMutations,
  ...copiesMutations,
  ...elasticMutations,
  ...brokerMutations,
  ...clientsMutations,
  ...ringsMutations,
  ...holdsMutations,
  ...modelsMutations,
  ...objectsMutations,
  ...enginesMutations,
  ...podMutations,
];
