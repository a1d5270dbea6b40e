/** The check of programs over a generated client in Python, before they are run. */

import { stockPython } from "../../harness/instance-needs.ts";
import type { Work } from "../work.ts";

/**
 * Their types, and what the client's types say to that. What the client itself is not strict about is its generator's affair.
 *
 * @param interpreter the Python that has what the client imports
 */
export function checkPython(work: Work, programs: readonly string[], interpreter = stockPython): Promise<string> {
  const how = ["--strict", "--follow-imports=silent", "--config-file=", "--python-executable", interpreter];
  return work.run([stockPython, "-m", "mypy", ...how, ...programs]);
}
