/** What a server answers, as types of the schemas that it follows. */

import type { z } from "@hono/zod-openapi";
import type * as ofDevices from "../../routes/schemas/device.ts";
import type * as elastic from "../../routes/schemas/elastic-pool.ts";
import type * as evictions from "../../routes/schemas/eviction.ts";
import type * as models from "../../routes/schemas/model.ts";
import type * as operations from "../../routes/schemas/operation.ts";
import type * as regions from "../../routes/schemas/region.ts";
import type * as sessions from "../../routes/schemas/session.ts";
import type * as books from "../../routes/schemas/stats.ts";

export type Region = z.infer<typeof regions.Region>;
export type RegionFacts = z.infer<typeof regions.RegionFacts>;
export type RegionDetail = z.infer<typeof regions.RegionDetail>;
export type Model = z.infer<typeof models.Model>;
export type Operation = z.infer<typeof operations.Operation>;
export type Stats = z.infer<typeof books.Stats>;
export type Deletion = z.infer<typeof regions.Deletion>;
export type Eviction = z.infer<typeof evictions.Eviction>;
export type Session = z.infer<typeof sessions.Session>;
export type Device = z.infer<typeof ofDevices.Device>;
export type Devices = z.infer<typeof ofDevices.DeviceList>;
export type Lease = z.infer<typeof sessions.Lease>;
export type ElasticPool = z.infer<typeof elastic.ElasticPool>;
export type ElasticPoolDetail = z.infer<typeof elastic.ElasticPoolDetail>;
export type MappedPages = z.infer<typeof elastic.MappedPages>;
export type PoolDeletion = z.infer<typeof elastic.PoolDeletion>;
export type Trim = z.infer<typeof elastic.Trim>;
export type Compaction = z.infer<typeof elastic.Compaction>;
