/**
 * What every driver does with its client, whatever the language. A driver gets the server's URL, that of the server of
 * tomorrow, and the size of the large region (0: there is no room for one), and prints a line for each step:
 * `ok STEP [what it read]` or `FAIL STEP: why`.
 */

import { tomorrows } from "../harness/tomorrow.ts";

/** One page for the header. */
const headerBytes = 4096;

/** 4 GiB and a bit: cut to 32 bits it would be the bit. */
export const largeBytes = 2 ** 32 + 12_345;

/** No machine has it. */
export const tooManyBytes = 2 ** 50;

/** What the drivers cannot know, since the server decides it. */
export interface Truth {
  readonly epoch: string;
}

/** What a step does, and the check of what the driver read where the driver alone could not tell whether it is right. */
interface StepMeaning {
  readonly does: string;
  readonly reads?: (truth: Truth) => RegExp;
}

const exactly = (...words: readonly (string | number)[]) => new RegExp(`^${words.join(" ")}$`);

export const steps = {
  create: {
    does: "a session with a TTL of 60000 owns region `weights` of model `default`, tensors `w` BF16 [2, 3] and `b` F32 [3]",
  },
  "checksum-null": { does: "its `checksum` is read, and is null" },
  get: { does: "by its id, with both tensors" },
  "get-by-name": { does: "as `default`/`weights`" },
  list: { does: "the model's regions: this one, and no next page" },
  change: { does: "label `job` = `nightly`, with the ETag of revision 1 as `If-Match`; the answer's revision is 2" },
  stale: { does: "the same with revision 1 again: 412, `revision-mismatch` from the Problem" },
  seal: { does: "with `checksum: true`; `sealed` is the answer's state" },
  checksum: { does: "its algorithm is `xxh3-64-tree`, its value 16 hexadecimal digits" },
  "not-found": { does: "region `reg_missingmissingmissingmissi`: 404, `region-not-found` from the Problem" },
  "name-taken": { does: "create `default`/`weights` again: 409, `name-taken` from the Problem" },
  invalid: {
    does: 'create with the labels `{"": "x"}`: 422, `validation-failed`, and of its `issues` the first one\'s path',
    reads: () => exactly("labels"),
  },
  full: {
    does: `create with \`byte_size\` ${tooManyBytes}: 507; code, \`requested_bytes\` and \`available_bytes\` from the Problem`,
    reads: () => exactly("pool-full", tooManyBytes + headerBytes, "[1-9][0-9]*"),
  },
  large: {
    does: "create with the `byte_size` given, delete; the tensor's and the file's `byte_size`",
    reads: () => exactly(largeBytes, largeBytes + headerBytes),
  },
  persist: { does: "create `default`/`kept` with `persist: true`; its owner's kind is `persist`; delete" },
  epoch: { does: "from `GET /v1/stats`", reads: ({ epoch }) => exactly(epoch) },
  tomorrow: {
    does:
      "through the server of tomorrow: create a region with a TTL and a tensor of BF16, and get `reg_missingmissingmissingmissi`; owner's kind, " +
      "storage's kind, dtype, and code of the Problem",
    reads: () => exactly(...["ttl", "shm", "BF16", "region-not-found"].map(tomorrows)),
  },
  end: { does: "the session; `regions` of the answer is 1" },
} as const satisfies Record<string, StepMeaning>;

export type Step = keyof typeof steps;

export const stepNames = Object.keys(steps) as readonly Step[];

/** What became of one step. */
export interface Outcome {
  readonly kind: "ok" | "failed" | "skipped";
  readonly text: string;
}

/** Reads what a driver printed: each step has an outcome, also the one that it did not get to. */
export function readOutcomes(printed: string, truth: Truth, noRoom: string | undefined): ReadonlyMap<Step, Outcome> {
  const lines = new Map<string, Outcome>();
  for (const line of printed.split("\n")) {
    const [, kind, step, told] = /^(ok|FAIL) ([a-z-]+):? ?(.*)$/.exec(line) ?? [];
    if (step !== undefined && told !== undefined && !lines.has(step))
      lines.set(step, { kind: kind === "ok" ? "ok" : "failed", text: told.trim() });
  }
  return new Map(stepNames.map((step) => [step, outcomeOf(step, lines.get(step), truth, noRoom)]));
}

function outcomeOf(step: Step, told: Outcome | undefined, truth: Truth, noRoom: string | undefined): Outcome {
  if (step === "large" && noRoom !== undefined) return { kind: "skipped", text: noRoom };
  if (told === undefined) return { kind: "failed", text: "the driver did not get there" };
  const { reads }: StepMeaning = steps[step];
  if (told.kind !== "ok" || reads === undefined || reads(truth).test(told.text)) return told;
  return { kind: "failed", text: `read ${told.text || "nothing"}, want ${reads(truth).source}` };
}
