/** A region's whole file over HTTP, its header first, as stock readers of safetensors want it: by a URL that ends in a file's name. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { regionByName } from "../memory/regions/find.ts";
import type { Region } from "../memory/state/region.ts";
import { accessRegion, checkModel, checkRegionAccess } from "./access/checks.ts";
import type { Environment, Services } from "./environment.ts";
import { ModelName, Name, RegionIdParameter, RegionName, VersionParameter } from "./schemas/common.ts";
import { declareBytes, RangeHeaders, sendBytes } from "./send-bytes.ts";

const file = Name.openapi({
  description: "What the reader calls it. Any name will do; some readers go by how it ends.",
  example: "weights.safetensors",
});
const tags = ["regions"];
const description = "A valid safetensors file: its header's length, the header, and the bytes of all tensors.";

const read = createRoute({
  operationId: "readFile",
  method: "get",
  path: "/v1/regions/{region}/file/{file}",
  tags,
  summary: "A region's whole file, for stock readers that cannot map it",
  description,
  request: { params: z.object({ region: RegionIdParameter, file }), headers: RangeHeaders },
  responses: declareBytes("region-draining"),
});

const readByName = createRoute({
  operationId: "readFileByName",
  method: "get",
  path: "/v1/models/{model}/regions/{name}/file/{file}",
  tags,
  summary: "The whole file of the region that has a name",
  description,
  request: {
    params: z.object({ model: ModelName, name: RegionName, file }),
    query: z.object({ version: VersionParameter }),
    headers: RangeHeaders,
  },
  responses: declareBytes("model-not-found"),
});

export function defineFileRoutes(app: OpenAPIHono<Environment>, { store }: Services): void {
  app.openapi(read, (c) => {
    store.refuseIfStopping();
    const { region: id, file: fileName } = c.req.valid("param");
    const region = accessRegion(c.get("caller"), "readFile", store, id);
    return sendBytes(c, store, region, wholeOf(region), fileName);
  });

  app.openapi(readByName, (c) => {
    store.refuseIfStopping();
    const { file: fileName, ...named } = c.req.valid("param");
    checkModel(c.get("caller"), named.model);
    const region = regionByName(store, { ...named, ...c.req.valid("query") });
    checkRegionAccess(c.get("caller"), "readFileByName", region);
    return sendBytes(c, store, region, wholeOf(region), fileName);
  });
}

function wholeOf({ byteSize }: Region) {
  return { byteOffset: 0, byteSize };
}
