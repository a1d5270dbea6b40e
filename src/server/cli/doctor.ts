/**
 * `doctor`: the diagnosis in words. A running server makes its own; where none answers, this process looks at the
 * directory by itself, and says so.
 */

import { resolve } from "node:path";
import { DeviceHost } from "../../cuda/device-host.ts";
import { diagnose } from "../../memory/doctor/diagnose.ts";
import type { Diagnosis, Finding } from "../../memory/doctor/finding.ts";
import { gatherFacts } from "../../memory/doctor/gather.ts";
import { greetHolder, lookAtHolder } from "../../memory/doctor/look-at-holder.ts";
import { count } from "../../memory/doctor/words.ts";
import { TensordError } from "../../memory/error.ts";
import { limits } from "../../memory/limits.ts";
import { toPrintableLine } from "../../memory/naming.ts";
import { socketName } from "../../memory/storage/fd-holder/protocol.ts";
import { toInstancePath } from "../../memory/storage/instance-directory.ts";
import type { Config } from "../config.ts";
import type { Api } from "./api.ts";
import { toJson } from "./table.ts";
import { within } from "./within.ts";

/** Longer than a directory of 100,000 files takes; a server that is stuck must not keep its own diagnosis from us. */
const patienceMs = 10_000;

export interface DoctorResult {
  readonly text: string;
  /** False if a finding is an error. */
  readonly ok: boolean;
}

export async function doctor(api: Api, config: Config, asJson: boolean): Promise<DoctorResult> {
  const diagnosis = (await askServer(api)) ?? (await lookMyself(config));
  return { ok: diagnosis.ok, text: asJson ? toJson(diagnosis) : toText(diagnosis) };
}

/** The server's own diagnosis, or undefined if none answers. @throws TensordError what else it answers. */
async function askServer(api: Api): Promise<Diagnosis | undefined> {
  try {
    return await within(patienceMs, api.call<Diagnosis>("GET", "/v1/doctor"));
  } catch (error) {
    if (error instanceof TensordError && error.code === "io-error") return undefined;
    throw error;
  }
}

async function lookMyself(config: Config): Promise<Diagnosis> {
  const question = {
    instance: config.instance,
    shmDirectory: resolve(config.shmDirectory),
    socket: null,
    broker: null,
    uid: process.geteuid?.() ?? 0,
    settingBytes: config.memoryLimitBytes,
    held: null,
    draining: [],
  };
  const { shmDirectory, instance } = question;
  const { holderSocket } = config;
  const holderPath = holderSocket ?? `${toInstancePath({ shmDirectory, instance })}/${socketName}`;
  const isHolderManaged = holderSocket !== undefined;
  const holder = await lookAtHolder(() => greetHolder({ holderPath, isHolderManaged }));
  using devices = new DeviceHost();
  const report = await devices.reportAlone(limits.driverLookMs);
  return diagnose({ question, host: gatherFacts(question), holder, devices: report, server: null, now: Date.now() });
}

const marks = { ok: "ok     ", warning: "WARNING", error: "ERROR  " } as const;

function toText({ findings }: Diagnosis): string {
  const sum = (status: Finding["status"]) => findings.filter((finding) => finding.status === status).length;
  const lines = findings.flatMap(({ check, status, summary, cure }) => [
    `${marks[status]}  ${check}: ${toPrintableLine(summary)}`,
    ...(cure === null ? [] : [`${" ".repeat(9)}cure: ${toPrintableLine(cure)}`]),
  ]);
  const sums = `${count(sum("error"), "error")}, ${count(sum("warning"), "warning")}, ${sum("ok")} fine`;
  return [...lines, "", sums].join("\n");
}
