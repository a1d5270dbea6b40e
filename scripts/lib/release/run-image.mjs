/** Runs an image without a container engine: umoci reads it, runc runs it, as locked up as the image says that it may be. */

import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { root, run } from "../process.mjs";
import { setUpDebian } from "./debian.mjs";
import { version } from "./facts.mjs";
import { need } from "./stage.mjs";

/** Where the executable is in the image. */
const program = "/usr/bin/tensord";

/** What runc needs and this machine has not, or undefined. */
export async function missingForImages() {
  if (process.arch !== "x64") return "needs runc for this processor, of which none is pinned";
  if (process.getuid?.() !== 0) return "needs root, to run a container";
  const runc = join(await setUpDebian("runc:amd64"), "usr/sbin/runc");
  const { status, output } = await run(runc, ["--version"], { capture: true });
  return status === 0 ? undefined : `needs what runc needs: ${output.trim()}`;
}

/** The container's configuration: the image's, with a root that nobody can write, no rights, and the machine's /dev/shm. */
function lockUp(spec, instance) {
  const { process: started, linux } = spec;
  return {
    ...spec,
    root: { ...spec.root, readonly: true },
    process: {
      ...started,
      terminal: false,
      env: [...started.env, `TENSORD_INSTANCE=${instance}`],
      capabilities: { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] },
      noNewPrivileges: true,
    },
    mounts: spec.mounts.map((mount) =>
      mount.destination === "/dev/shm"
        ? {
            destination: "/dev/shm",
            type: "bind",
            source: "/dev/shm",
            options: ["rbind", "rw", "nosuid", "nodev", "noexec"],
          }
        : mount,
    ),
    linux: { ...linux, cgroupsPath: `/tensord-${instance}` },
  };
}

/**
 * Unpacks the image into a bundle, whose server has the name `instance`.
 *
 * @returns the folder, the server's configuration, and command lines: of the server, of commands beside it, and of what purges it
 */
export async function installImage(archive, instance) {
  const folder = mkdtempSync(join(tmpdir(), "tensord-image-"));
  const runc = join(await setUpDebian("runc:amd64"), "usr/sbin/runc");
  const umoci = join(await setUpDebian("umoci:amd64"), "usr/bin/umoci");
  const [layout, bundle, purge] = ["layout", "bundle", "purge"].map((name) => join(folder, name));
  for (const path of [layout, purge]) mkdirSync(path);
  await need("unpack the image", "tar", ["-xf", resolve(root, archive), "-C", layout]);
  await need("read the image", umoci, ["unpack", "--image", `${layout}:${version}`, bundle]);
  const spec = lockUp(JSON.parse(readFileSync(join(bundle, "config.json"), "utf8")), instance);
  writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
  // The same once more, with another command: nobody but the image's user may purge what it made.
  const purging = { ...spec, process: { ...spec.process, args: [program, "purge"] } };
  const rootfs = { ...spec.root, path: join(bundle, spec.root.path) };
  writeFileSync(join(purge, "config.json"), JSON.stringify({ ...purging, root: rootfs }));
  const containers = [runc, "--root", join(folder, "state")];
  return {
    ...{ folder, spec },
    serve: [...containers, "run", "--bundle", bundle, instance],
    command: [...containers, "exec", instance, program],
    remove: [...containers, "delete", "--force", instance],
    purge: [...containers, "run", "--bundle", purge, `${instance}-purge`],
  };
}
