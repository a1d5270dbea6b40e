/** openapi-generator's client for Rust, on reqwest. */

import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import type { Row } from "../row.ts";
import { buildRust, driveRust, fetchCrates, needsCargo } from "../rust/build.ts";

export const openApiGeneratorRust: Row = {
  name: "openapi-generator-rust",
  generator: openApiGenerator,
  language: "Rust (reqwest)",
  document: "openapi.yaml",
  needs: [needsJava, needsCargo],
  files: ["driver.rs", "Cargo.toml", "Cargo.lock", "../rust/report.rs"],
  fetch: async (work) => {
    await fetchOpenApiGenerator(work);
    await fetchCrates(work);
  },
  generate: (work) => generateWith(work, "rust", { packageName: "client", useSingleRequestParameter: true }),
  compile: buildRust,
  drive: driveRust,
};
