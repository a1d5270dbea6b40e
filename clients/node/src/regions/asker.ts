/** Who asks for regions: the routes, and the session unless the client has none. */

import type { Api } from "../http/api.ts";
import type { Session } from "../session/session.ts";

export interface Asker {
  readonly api: Api;
  readonly session: Session | undefined;
}
