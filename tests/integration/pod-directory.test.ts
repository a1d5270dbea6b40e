/** A volume that anybody may write, as Kubernetes' emptyDir is: the server makes a directory in it that nobody else takes away. */

import { expect } from "bun:test";
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needsReadableCheckout, needsRoot, testWith } from "../harness/instance-needs.ts";
import { Tmpfs } from "../harness/instance-tmpfs.ts";
import { startServer, TestServer } from "../harness/server.ts";
import { runTensord } from "../harness/server-command.ts";

const MiB = 2 ** 20;
const fsGroup = 2000;
const nobody = 65534;

/** The kubelet's volume: everybody's, and with `fsGroup` of that group, which what is made in it has too. */
function mountVolume(): Tmpfs {
  const volume = new Tmpfs({ sizeBytes: 64 * MiB, mode: "0777" });
  chownSync(volume.path, 0, fsGroup);
  chmodSync(volume.path, 0o2777);
  return volume;
}

const isRoot = testWith(needsRoot);

isRoot("the server makes a shared directory that is missing: its own, sticky, and its group's", async () => {
  using volume = mountVolume();
  const path = join(volume.path, "t");
  await using server = await startServer({ shmDirectory: path });
  const { mode, uid, gid } = lstatSync(path);
  expect([(mode & 0o7777).toString(8), uid, gid]).toEqual(["3770", 0, fsGroup]);
  expect(lstatSync(server.instance.directory).gid).toBe(fsGroup);
  const { stdout } = await runTensord(["doctor", "--json"], server.env);
  expect(stdout).toContain(`${path} has mode 3770: only a file's owner may rename or remove it.`);
  // It is of the volume's life, and not of the instance's.
  await server.stop();
  await server.start();
  expect(readdirSync(volume.path)).toEqual(["t"]);
});

isRoot("a member of the group makes files there, and takes nobody's away", async () => {
  using volume = mountVolume();
  const path = join(volume.path, "t");
  await using server = await startServer({ shmDirectory: path });
  const region = await server.api.create({ byte_size: 4096, ttl_ms: 60_000 });
  const asMember = (...command: string[]) =>
    Bun.spawnSync(["setpriv", "--reuid=1000", "--regid=1000", `--groups=${fsGroup}`, ...command], {
      env: { PATH: process.env.PATH ?? "" },
    }).exitCode;
  expect(asMember("touch", join(path, "own"))).toBe(0);
  expect(asMember("mv", server.instance.directory, join(path, "away"))).not.toBe(0);
  expect(asMember("rm", "-f", region.storage.path)).not.toBe(0);
  expect(existsSync(region.storage.path)).toBeTrue();
});

testWith(needsRoot, needsReadableCheckout())(
  "where it may not be made, the start says whose permission lacks",
  async () => {
    using volume = new Tmpfs({ sizeBytes: 64 * MiB, mode: "0755" });
    await using server = new TestServer({ shmDirectory: join(volume.path, "t"), uid: nobody });
    server.spawn();
    expect(await server.exited()).toBe(1);
    const { errors } = server.log;
    server.log.errors = "";
    expect(errors).toBe(
      `tensord: Cannot make the directory ${volume.path}/t: EACCES\nhint: Give uid ${nobody} write permission on the directory above it.\n`,
    );
    mkdirSync(server.instance.shmDirectory);
  },
);

testWith()("on a disk, and below nothing, a missing shared directory stays a mistake", async () => {
  for (const path of [join(tmpdir(), `tensord-${crypto.randomUUID()}`), `/dev/shm/${crypto.randomUUID()}/t`]) {
    const env = { PATH: process.env.PATH ?? "", TENSORD_SHM_DIR: path, TENSORD_INSTANCE: "none", TENSORD_PORT: "" };
    const { status, stderr } = await runTensord(["serve"], env);
    expect([status, stderr]).toEqual([
      1,
      `tensord: Cannot open the shared memory directory ${path}: ENOENT\n` +
        "hint: Mount a tmpfs there, or set TENSORD_SHM_DIR to a directory on one.\n",
    ]);
    expect(existsSync(path)).toBeFalse();
  }
});

isRoot("neither purge nor the doctor makes it", async () => {
  using volume = mountVolume();
  const env = { PATH: process.env.PATH ?? "", TENSORD_SHM_DIR: join(volume.path, "t"), TENSORD_INSTANCE: "none" };
  for (const command of ["purge", "doctor"]) await runTensord([command], env);
  expect(readdirSync(volume.path)).toEqual([]);
});

isRoot("in a pod the hint says to mount the volume, and not to start a server", async () => {
  using volume = mountVolume();
  const env = { PATH: process.env.PATH ?? "", TENSORD_SHM_DIR: volume.path, KUBERNETES_SERVICE_HOST: "10.0.0.1" };
  for (const command of ["ls", "doctor"]) {
    const { stdout, stderr } = await runTensord([command], env);
    expect(stdout + stderr).toContain("Mount the sidecar's volume in this container");
    expect(stdout + stderr).not.toContain("npm start");
  }
});
