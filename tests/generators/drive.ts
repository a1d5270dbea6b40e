/** Lets a row's driver, compiled with its client, talk to a server that runs. */

import { startTomorrow } from "../harness/tomorrow.ts";
import type { Row } from "./row.ts";
import { largeBytes, type Outcome, readOutcomes, type Step } from "./steps.ts";
import type { Work } from "./work.ts";

/**
 * @param url of a server on which nothing else happens
 * @param noRoom why there is to be no large region
 */
export async function drive(
  row: Row,
  work: Work,
  url: string,
  noRoom: string | undefined,
): Promise<ReadonlyMap<Step, Outcome>> {
  if (typeof row.drive === "string") throw new Error(`Cannot drive ${row.name}: ${row.drive}`);
  await using tomorrow = startTomorrow(url);
  // The digits as they came: a number of JavaScript would do here, but who checks others should not read with its own.
  const stats = await (await fetch(`${url}/v1/stats`)).text();
  const epoch = /"epoch":(\d+)/.exec(stats)?.[1] ?? "";
  const size = noRoom === undefined ? largeBytes : 0;
  const { status, output } = await work.try([...(await row.drive(work)), url, tomorrow.url, String(size)]);
  const outcomes = readOutcomes(output, { epoch }, noRoom);
  if (status === 0) return outcomes;
  // Whatever it says after its last step is why it ended there.
  const end = `the driver left with ${status}: ${output.trim().split("\n").slice(-15).join("\n")}`;
  return new Map([...outcomes, ["end", { kind: "failed", text: end }]]);
}
