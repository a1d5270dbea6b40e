/** How the rows for the Java machine get their libraries: a `pom.xml` names them, and Maven lays the jars into a folder. */

import type { Need, Row } from "../row.ts";
import type { Work } from "../work.ts";

const dependencyPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.9.0";

export const needsMaven: Need = { command: "mvn", version: ["-version"], want: "Maven 3.8 or newer" };

/** Lays what the file `pom` names, and what that needs, into the row's folder `folder`. */
export function fetchLibraries(work: Work, pom = "pom.xml", folder = "libraries"): Promise<string> {
  const plugin = [`${dependencyPlugin}:copy-dependencies`, `-DoutputDirectory=${work.path(folder)}`];
  return work.run(["mvn", "--batch-mode", "--quiet", "--file", work.path(pom), ...plugin]);
}

/** The driver and the client as `compile` made them, with their libraries. */
export const driveJvm =
  (mainClass: string): Row["drive"] =>
  (work) => ["java", "-cp", [work.path("classes"), work.path("libraries/*")].join(":"), mainClass];
