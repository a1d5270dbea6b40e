/** Whose work is in the executable, by what the bundler says of it: the notices that go with every artefact, and a bill of materials. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { metafileFor } from "../executable.mjs";
import { Failure, root } from "../process.mjs";
import { summary, version } from "./facts.mjs";

const licenceFile = /^(licen[cs]e|notice|copying)|\.licen[cs]e\.txt$/i;

/** What a package that carries no text is under; its author is in its manifest. */
const mit =
  'Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), ' +
  "to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, " +
  "sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the " +
  "following conditions: The above copyright notice and this permission notice shall be included in all copies or substantial portions of the " +
  'Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF ' +
  "MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR " +
  "ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH " +
  "THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.";

const read = (...path) => readFileSync(join(root, ...path), "utf8").trimEnd();

const authorOf = ({ author }) => (typeof author === "string" ? author : author?.name) ?? "its authors";

function licenceTexts(folder, manifest) {
  // Source maps and bundles that are not taken have texts of their own, which say nothing of what is.
  const files = readdirSync(join(root, folder))
    .filter((name) => licenceFile.test(name) && !/(-es-|-standalone-)/.test(name))
    .sort();
  if (files.length > 0) return files.map((name) => read(folder, name)).join("\n\n");
  if (manifest.license === "MIT") return `Copyright (c) ${authorOf(manifest)}\n\n${mit}`;
  throw new Failure(
    `Cannot say the licence of ${manifest.name}: it is ${manifest.license}, and ${folder} has no text of it`,
  );
}

/** Packages that the bundler took, by name. Those of a test or of a tool are not among them. */
export function packagesInside(architecture) {
  const { inputs } = JSON.parse(read(metafileFor(architecture)));
  const folder = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//;
  const folders = new Set(Object.keys(inputs).flatMap((path) => folder.exec(path)?.[1] ?? []));
  return [...folders].sort().map((place) => {
    const manifest = JSON.parse(read(place, "package.json"));
    return {
      name: manifest.name,
      version: manifest.version,
      licence: manifest.license,
      text: licenceTexts(place, manifest),
    };
  });
}

function bunInside() {
  const manifest = JSON.parse(read("node_modules/bun-types/package.json"));
  const text = read("node_modules/bun-types/docs/project/license.mdx").replace(/^---.*?^---\n+/ms, "");
  return { name: "bun", version: manifest.version, licence: "MIT", text: `Copyright (c) Oven\n\n${mit}\n\n${text}` };
}

/** What more than one part is under, and none of them carries. */
const sharedTexts = ["LGPL-2.0", "LGPL-2.1"];

/** The text of THIRD-PARTY.txt. */
export function toNotices(architecture) {
  const parts = [bunInside(), ...packagesInside(architecture)];
  const rule = "=".repeat(100);
  const section = (title, text) => `${rule}\n${title}\n${rule}\n\n${text}\n`;
  return [
    `tensord ${version} is under the Apache License 2.0 (LICENSE). Its executable also holds what follows, each under its own licence.\n`,
    ...parts.map(({ name, version: of, licence, text }) => section(`${name} ${of}: ${licence}`, text)),
    ...sharedTexts.map((name) => section(name, read("packaging/licences", `${name}.txt`))),
  ].join("\n");
}

function toComponent({ name, version: of, licence, purl = `pkg:npm/${name.replace("@", "%40")}@${of}` }) {
  const licences = /^[A-Za-z0-9.-]+$/.test(licence) ? [{ license: { id: licence } }] : [{ expression: licence }];
  return { type: "library", "bom-ref": purl, name, version: of, licenses: licences, purl };
}

/**
 * The bill of materials, as CycloneDX 1.6. It has no serial number and no time of the build, which would differ from build to build.
 *
 * @param more what lies beside the executable, as `{ name, version, licence, purl }`
 */
export function toBillOfMaterials(architecture, seconds, more = []) {
  const parts = [bunInside(), ...packagesInside(architecture), ...more];
  const bill = {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      timestamp: new Date(seconds * 1000).toISOString(),
      component: {
        ...{ type: "application", "bom-ref": "tensord", name: "tensord", version, description: summary },
        licenses: [{ license: { id: "Apache-2.0" } }],
      },
    },
    components: parts.map(toComponent),
    dependencies: [{ ref: "tensord", dependsOn: parts.map((part) => toComponent(part).purl) }],
  };
  return `${JSON.stringify(bill, null, 2)}\n`;
}
