/**
 * progenitor's client for Rust, on reqwest: a macro of the driver's, so that the compiler generates. It reads no OpenAPI 3.1,
 * and of JSON only what is called `application/json`: the driver reads a Problem from the bytes that it is given.
 */

import { copyFileSync } from "node:fs";
import type { Row } from "../row.ts";
import { buildRust, driveRust, fetchCrates, needsCargo } from "../rust/build.ts";

const document = "openapi-3.0.yaml";

export const progenitor: Row = {
  name: "progenitor",
  generator: "progenitor 0.15.1",
  language: "Rust (reqwest)",
  document,
  needs: [needsCargo],
  files: ["driver.rs", "Cargo.toml", "Cargo.lock", "../rust/report.rs"],
  fetch: fetchCrates,
  generate: async (work) => {
    copyFileSync(work.document, work.path(document));
    return "";
  },
  compile: buildRust,
  drive: driveRust,
};
