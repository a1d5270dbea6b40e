/** What lies in `deploy` and what is published, as far as reading tells: one version everywhere, and a compose file that keeps its promises. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { read, root } from "../harness/repository.ts";

const { processors, version } = await import(join(root, "scripts/lib/release/facts.mjs"));
const { architectures } = await import(join(root, "scripts/lib/runtime.mjs"));

test("every package has the server's version, and asks for the server of the same", () => {
  const python = Bun.TOML.parse(read("clients/python/pyproject.toml")) as {
    project: { version: string; "optional-dependencies": Record<string, string[]> };
  };
  expect(JSON.parse(read("clients/node/package.json")).version).toBe(version);
  expect(python.project.version).toBe(version);
  expect(python.project["optional-dependencies"].server).toEqual([`tensord-server==${version}`]);
  expect(read("clients/python/src/tensord/_version.py")).toContain(`__version__ = "${version}"\n`);
  const locked = '{ name = "tensord-server", marker = "extra == \'server\'", specifier = "==';
  expect(read("clients/python/uv.lock")).toContain(`${locked}${version}" }`);
});

test("a release is made for every processor that the executable is built for", () => {
  expect(Object.keys(processors).toSorted()).toEqual(architectures.toSorted());
});

interface Service {
  readonly image: string;
  readonly [key: string]: unknown;
}

const composePath = "deploy/compose/compose.yaml";
const { services } = Bun.YAML.parse(read(composePath)) as { services: Record<string, Service> };

const gigabytes = (text: unknown) => Number(/^(\d+)gb$/.exec(String(text))?.[1]);

test("in the compose file the server is locked up, opens no port, and has room for itself", () => {
  const server = services.tensord;
  expect(server).toMatchObject({
    image: `tensord:${version}`,
    ...{ read_only: true, cap_drop: ["ALL"], security_opt: ["no-new-privileges:true"], ipc: "shareable" },
    environment: { TENSORD_PORT: "" },
  });
  expect(server).not.toContainKey("ports");
  expect(gigabytes(server?.mem_limit)).toBeGreaterThan(gigabytes(server?.shm_size));
});

test("in the compose file every worker shares the server's memory, waits for it, and has a limit", () => {
  const workers = Object.entries(services).filter(([name]) => name !== "tensord");
  expect(workers.length).toBeGreaterThan(0);
  for (const [, worker] of workers) {
    expect(worker).toMatchObject({
      ...{ ipc: "service:tensord", group_add: ["65532"] },
      depends_on: { tensord: { condition: "service_healthy" } },
    });
    expect(gigabytes(worker.mem_limit)).toBeGreaterThan(0);
  }
});

const compose = Bun.spawnSync(["sh", "-c", "docker compose version"]).exitCode === 0;

test.skipIf(!compose)("docker takes the compose file [skipped where docker has no compose]", () => {
  const { exitCode, stderr } = Bun.spawnSync(["docker", "compose", "-f", composePath, "config", "--quiet"], {
    cwd: root,
  });
  expect([exitCode, String(stderr)]).toEqual([0, ""]);
});
