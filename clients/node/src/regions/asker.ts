/** Who asks for regions: the routes, the broker, and the session unless the client has none. */

import type { Api } from "../http/api.ts";
import type { DescriptorSource } from "../memory/descriptor-source.ts";
import type { Session } from "../session/session.ts";

export interface Asker {
  readonly api: Api;
  readonly broker: DescriptorSource;
  readonly session: Session | undefined;
}
