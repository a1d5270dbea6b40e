/** A file of settings: what may stand in it, and what is said of one that cannot be used. */

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseConfig, type SettingName, settings } from "../../src/server/config.ts";
import { readSettingsFile } from "../../src/server/config-file.ts";

const folder = mkdtempSync(join(tmpdir(), "tensord-settings-"));
const path = join(folder, "tensord.yaml");
afterAll(() => rmSync(folder, { recursive: true }));

function readTexts(content: string) {
  writeFileSync(path, content);
  return readSettingsFile(path).texts;
}

function refusalOf(content: string): string {
  try {
    readTexts(content);
  } catch (error) {
    return error instanceof Error ? error.message : "";
  }
  throw new Error(`accepted: ${content}`);
}

test("every setting may stand in a file, under the name of its flag", () => {
  for (const name of Object.keys(settings) as SettingName[]) {
    expect(readTexts(`${settings[name].flag.slice(2)}: "x"`)).toEqual({ [name]: "x" });
  }
});

test("numbers, lists and nothing are what the flag would be given", () => {
  const content = "# of this machine\nport:\nmemory-limit-bytes: 1e9\nallowed-hosts: [a.example, 'b.example:8443']\n";
  const texts = readTexts(content);
  expect(texts).toEqual({ port: "", memoryLimitBytes: "1000000000", allowedHosts: "a.example,b.example:8443" });
  expect(parseConfig({}, {}, texts)).toMatchObject({ port: undefined, memoryLimitBytes: 1e9, instance: "default" });
  expect(readTexts("# nothing\n")).toEqual({});
});

test("a flag and the environment win over a file", () => {
  const file = readTexts("port: 1\ninstance: of-file\nlog-level: warn\n");
  const config = parseConfig({ TENSORD_PORT: "2", TENSORD_INSTANCE: "of-environment" }, { port: "3" }, file);
  expect([config.port, config.instance, config.logLevel]).toEqual([3, "of-environment", "warn"]);
});

test("what cannot be used is refused with the path, and all mistakes at once", () => {
  const refusal = refusalOf("prot: 7411\ninstance: true\nstorages: {shm: 1}\n");
  expect(refusal).toStartWith(`Cannot use the settings of ${path}: prot is no setting; want some of host, port,`);
  expect(refusal).toContain("; instance is true, want a text, a number or a list of texts");
  expect(refusal).toContain('; storages is {"shm":1}, want a text');
  expect(refusalOf("port: [")).toContain(`Cannot use the settings of ${path}: `);
  expect(refusalOf("7411")).toBe(`Cannot use the settings of ${path}: want lines such as "port: 7411"`);
  expect(refusalOf("- 7411")).toEndWith('want lines such as "port: 7411"');
  expect(refusalOf(`instance: ${"x".repeat(70_000)}`)).toEndWith("it is longer than 65536 bytes");
});

test("a file that is not there is refused by name", () => {
  expect(() => readSettingsFile(join(folder, "none.yaml"))).toThrow(
    `Cannot read the settings of ${folder}/none.yaml: `,
  );
});
