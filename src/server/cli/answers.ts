/** What a server answers, as types of the schemas that it follows. */

import type { z } from "@hono/zod-openapi";
import type * as schemas from "../../routes/schemas.ts";
import type * as eviction from "../../routes/schemas-eviction.ts";
import type * as sessions from "../../routes/schemas-session.ts";

export type Region = z.infer<typeof schemas.Region>;
export type RegionFacts = z.infer<typeof schemas.RegionFacts>;
export type RegionDetail = z.infer<typeof schemas.RegionDetail>;
export type Model = z.infer<typeof schemas.Model>;
export type Stats = z.infer<typeof schemas.Stats>;
export type Deletion = z.infer<typeof schemas.Deletion>;
export type Eviction = z.infer<typeof eviction.Eviction>;
export type Session = z.infer<typeof sessions.Session>;
