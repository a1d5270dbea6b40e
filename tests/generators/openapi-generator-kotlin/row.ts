/** openapi-generator's client for Kotlin, on OkHttp and Moshi. */

import { driveJvm, fetchLibraries, needsMaven } from "../jvm/libraries.ts";
import { fetchOpenApiGenerator, generateWith, needsJava, openApiGenerator } from "../openapi-generator.ts";
import type { Row } from "../row.ts";

const compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler";

export const openApiGeneratorKotlin: Row = {
  name: "openapi-generator-kotlin",
  generator: openApiGenerator,
  language: "Kotlin (OkHttp, Moshi)",
  document: "openapi.yaml",
  needs: [needsJava, needsMaven],
  files: ["Driver.kt", "pom.xml", "compiler.xml"],
  fetch: async (work) => {
    await fetchOpenApiGenerator(work);
    await fetchLibraries(work);
    await fetchLibraries(work, "compiler.xml", "compiler");
  },
  generate: (work) => generateWith(work, "kotlin", { packageName: "client" }),
  compile: (work) => {
    const libraries = [...new Bun.Glob("libraries/*.jar").scanSync(work.folder)].join(":");
    const told = ["-no-stdlib", "-no-reflect", "-nowarn", "-classpath", libraries, "-d", "classes"];
    return work.run(["java", "-cp", "compiler/*", compiler, ...told, "Driver.kt", "client/src/main/kotlin"]);
  },
  drive: driveJvm("DriverKt"),
};
