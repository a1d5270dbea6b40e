/** What openapi-python-client makes, over httpx. The generator is one of the packages of `.venv`. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root, stockPython } from "../../harness/instance-needs.ts";
import { checkPython } from "../python/check.ts";
import type { Row } from "../row.ts";

const project = readFileSync(join(root, "clients/python/pyproject.toml"), "utf8");
const version = /"openapi-python-client==([\d.]+)"/.exec(project)?.[1];

export const openApiPythonClient: Row = {
  name: "openapi-python-client",
  generator: `openapi-python-client ${version}`,
  language: "Python (httpx)",
  document: "openapi.yaml",
  needs: [{ command: stockPython, version: ["--version"], want: "the .venv that `npm test` makes" }],
  files: [
    "../../generated/openapi-python-client/driver.py",
    "../python/report.py",
    "../../generated/openapi-python-client/told.py",
    "../../generated/openapi-python-client/config.yaml",
  ],
  generate: (work) =>
    work.run([
      ...[stockPython, "-m", "openapi_python_client", "generate", "--path", work.document, "--meta=none"],
      ...["--output-path=client", "--config=config.yaml", "--fail-on-warning"],
    ]),
  compile: (work) => checkPython(work, ["driver.py", "told.py"]),
  drive: () => [stockPython, "driver.py"],
};
