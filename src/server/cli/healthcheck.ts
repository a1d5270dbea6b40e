/** `healthcheck`: one question to a running server, for exec probes of containers. */

import type { Api } from "./api.ts";
import { within } from "./within.ts";

/** Under the second that an exec probe gets by default there would be no time to say why. */
const patienceMs = 3000;

/**
 * @param live asks whether the process answers, else whether requests are welcome.
 * @throws TensordError with the server's own reason, or that nobody answers.
 */
export async function healthcheck(api: Api, live: boolean): Promise<string> {
  await within(patienceMs, api.call("GET", live ? "/livez" : "/readyz"));
  return live ? "live" : "ready";
}
