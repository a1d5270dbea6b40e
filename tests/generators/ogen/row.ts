/** ogen's client for Go, on net/http; its server side is generated and compiled too. */

import { buildGo, installGo, needsGo } from "../go/build.ts";
import type { Row } from "../row.ts";
import type { Work } from "../work.ts";

const version = "1.25.0";
const fetch = (work: Work) => installGo(work, "github.com/ogen-go/ogen/cmd/ogen", version);

export const ogen: Row = {
  name: "ogen",
  generator: `ogen ${version}`,
  language: "Go (net/http, OpenTelemetry)",
  document: "openapi.yaml",
  needs: [needsGo],
  files: ["driver.go", "go.mod", "go.sum", "../go/report.go"],
  fetch,
  generate: async (work) => work.run([await fetch(work), "--target", "client", "--package", "client", work.document]),
  compile: buildGo,
  drive: (work) => [work.path("driver")],
};
