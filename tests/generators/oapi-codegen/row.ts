/** oapi-codegen's client for Go, on net/http. */

import { buildGo, installGo, needsGo } from "../go/build.ts";
import type { Row } from "../row.ts";
import type { Work } from "../work.ts";

const version = "2.8.2";
const fetch = (work: Work) => installGo(work, "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen", version);

export const oapiCodegen: Row = {
  name: "oapi-codegen",
  generator: `oapi-codegen ${version}`,
  language: "Go (net/http)",
  document: "openapi.yaml",
  needs: [needsGo],
  files: ["driver.go", "config.yaml", "go.mod", "go.sum", "../go/report.go"],
  fetch,
  generate: async (work) => work.run([await fetch(work), "-config", "config.yaml", work.document]),
  compile: buildGo,
  drive: (work) => [work.path("driver")],
};
