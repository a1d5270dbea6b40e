/** openapi-generator, one jar for all of its languages: what is pinned, and how a row calls it. */

import type { Need } from "./row.ts";
import type { Work } from "./work.ts";

const version = "7.25.0";
const sha256 = "41ce4f6b07f196676439d710759fa1ced7a08066d06ff1bf314681470289efae";

export const openApiGenerator = `openapi-generator ${version}`;

export const needsJava: Need = { command: "java", version: ["-version"], want: "Java 11 or newer" };

/** @returns the jar's path, once it is there */
export function fetchOpenApiGenerator(work: Work): Promise<string> {
  const name = `openapi-generator-cli-${version}.jar`;
  return work.keep(name, (path) =>
    work.download(
      `https://repo1.maven.org/maven2/org/openapitools/openapi-generator-cli/${version}/${name}`,
      sha256,
      path,
    ),
  );
}

/**
 * Makes the client, in the folder `client` of the work's unless another one is said.
 *
 * @param target the generator's name for the language
 * @param properties what it is told with `--additional-properties`
 */
export async function generateWith(
  work: Work,
  target: string,
  properties: Readonly<Record<string, string | boolean>> = {},
  output = "client",
): Promise<string> {
  const said = Object.entries({ hideGenerationTimestamp: true, ...properties }).map(
    ([key, value]) => `${key}=${value}`,
  );
  const jar = await fetchOpenApiGenerator(work);
  return work.run([
    ...["java", "-jar", jar, "generate", "--generator-name", target, "--input-spec", work.document],
    ...["--output", work.path(output), `--additional-properties=${said.join(",")}`],
  ]);
}
