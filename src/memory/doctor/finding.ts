/** What a diagnosis is made of. */

/** `error`: it does not work, or will not. `warning`: it works, and something will hurt. */
export type Status = "ok" | "warning" | "error";

export interface Finding {
  /** What was looked at: a short name that stays the same. */
  readonly check: string;
  readonly status: Status;
  /** A sentence, with the numbers. */
  readonly summary: string;
  /** What to do about it; null if there is nothing to do. */
  readonly cure: string | null;
}

export interface Diagnosis {
  /** Whether no finding is an error. */
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

export function fine(check: string, summary: string): Finding {
  return { check, status: "ok", summary, cure: null };
}

export function warning(check: string, summary: string, cure: string): Finding {
  return { check, status: "warning", summary, cure };
}

export function failing(check: string, summary: string, cure: string): Finding {
  return { check, status: "error", summary, cure };
}
