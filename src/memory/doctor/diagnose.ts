/** The checks in the order in which they are told, and what they come to. Pure. */

import type { Facts } from "./facts.ts";
import type { Diagnosis, Finding } from "./finding.ts";
import { judgeDevices } from "./judge-devices.ts";
import {
  judgeBroker,
  judgeFileSystem,
  judgeInodes,
  judgeMoved,
  judgeOwn,
  judgeSize,
  judgeSocket,
  judgeSpace,
  judgeSticky,
} from "./judge-directory.ts";
import { judgeFiles } from "./judge-files.ts";
import { judgeHolder } from "./judge-holder.ts";
import { judgeBarred, judgeDraining, judgeForeign, judgeInstances, judgeLimit, judgeSwap } from "./judge-memory.ts";
import { judgePages } from "./judge-pages.ts";
import { judgeOpenFiles, judgeRemoveIpc, judgeServer, judgeTcp, judgeWatch } from "./judge-process.ts";
import { judgeReserve } from "./judge-reserve.ts";

/** Each gives one finding, or none where there is nothing to look at; that of devices one for each that cannot be used. */
const judges: readonly ((facts: Facts) => Finding | readonly Finding[] | undefined)[] = [
  judgeServer,
  judgeFileSystem,
  judgeSize,
  judgeSpace,
  judgeInodes,
  judgeSticky,
  judgeMoved,
  judgeOwn,
  judgeSocket,
  judgeBroker,
  judgeForeign,
  judgeInstances,
  judgeLimit,
  judgeSwap,
  judgeReserve,
  judgeRemoveIpc,
  judgeTcp,
  judgeWatch,
  judgeOpenFiles,
  judgeHolder,
  judgeDraining,
  judgeBarred,
  judgeFiles,
  judgeDevices,
  judgePages,
];

export function diagnose(facts: Facts): Diagnosis {
  const findings = judges.flatMap((judge) => judge(facts) ?? []);
  return { ok: findings.every(({ status }) => status !== "error"), findings };
}
