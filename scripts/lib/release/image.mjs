/**
 * The image: the executable, the four libraries of the C library that it needs with their loader, a user, and licences. Nothing else: no shell,
 * no package manager. Written by hand, as an OCI layout that docker loads too: no registry is asked, and no tool has a say in the bytes.
 */

import { copyFileSync, cpSync, mkdirSync, renameSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { executableFor } from "../executable.mjs";
import { Failure, root } from "../process.mjs";
import { pins, setUpDebian } from "./debian.mjs";
import { licenceExpression, processors, releaseFolder, summary, version } from "./facts.mjs";
import { placeNotices } from "./file.mjs";
import { hashFile, makeStage, need, packTar, place } from "./stage.mjs";

/** Loader and libraries by Debian's word for the processor, at the places that the executable and the loader name. */
const loaders = { amd64: "lib64/ld-linux-x86-64.so.2", arm64: "lib/ld-linux-aarch64.so.1" };
const libraryFolders = { amd64: "lib/x86_64-linux-gnu", arm64: "lib/aarch64-linux-gnu" };
const libraries = ["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"];

/** A user that no distribution gives to anybody, and that distroless images have too. */
const uid = 65_532;

const mostBytes = 150e6;
const second = 1e9;

const copy = (from, to) => {
  mkdirSync(join(to, ".."), { recursive: true });
  // What is a link there is a file here.
  cpSync(from, to, { dereference: true });
};

async function placeRoot(folder, architecture, seconds) {
  const { debian } = processors[architecture];
  const libc = await setUpDebian(`libc6:${debian}`);
  const places = [loaders[debian], ...libraries.map((name) => join(libraryFolders[debian], name))];
  // A link's target is a path from its root: the folder that has it is found by the name.
  copy(join(libc, libraryFolders[debian], loaders[debian].split("/").at(-1)), join(folder, loaders[debian]));
  for (const path of places.slice(1)) copy(join(libc, path), join(folder, path));
  copy(join(libc, "usr/share/doc/libc6/copyright"), join(folder, "usr/share/doc/libc6/copyright"));
  mkdirSync(join(folder, "usr/bin"), { recursive: true });
  copyFileSync(join(root, executableFor(architecture)), join(folder, "usr/bin/tensord"));
  place(join(folder, "etc/passwd"), `tensord:x:${uid}:${uid}:tensord:/:/sbin/nologin\n`);
  place(join(folder, "etc/group"), `tensord:x:${uid}:\n`);
  const libcVersion = pins[`libc6:${debian}`].version;
  const inside = {
    ...{ name: "libc6", version: libcVersion, licence: "LGPL-2.1-or-later" },
    purl: `pkg:deb/debian/libc6@${encodeURIComponent(libcVersion)}?arch=${debian}&distro=bookworm`,
  };
  const notices = join(folder, "usr/share/doc/tensord");
  mkdirSync(notices);
  placeNotices(notices, architecture, seconds, [inside]);
}

/** What a runtime makes of it; `Healthcheck` is docker's. */
function toConfig({ architecture, seconds, diffId }) {
  const created = new Date(seconds * 1000).toISOString();
  return {
    ...{ architecture: processors[architecture].image, os: "linux", created },
    config: {
      User: `${uid}:${uid}`,
      // Nobody outside reaches a container's loopback: the Unix socket alone.
      Env: ["PATH=/usr/bin", "TENSORD_PORT="],
      ...{ Entrypoint: ["/usr/bin/tensord"], Cmd: ["serve"], WorkingDir: "/", StopSignal: "SIGTERM" },
      Healthcheck: {
        Test: ["CMD", "/usr/bin/tensord", "healthcheck"],
        ...{ Interval: 10 * second, Timeout: 5 * second, StartPeriod: 30 * second, Retries: 3 },
      },
      Labels: {
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.description": summary,
        "org.opencontainers.image.licenses": licenceExpression,
        "org.opencontainers.image.title": "tensord",
        "org.opencontainers.image.version": version,
      },
    },
    rootfs: { type: "layers", diff_ids: [`sha256:${diffId}`] },
    history: [{ created, created_by: "npm run release" }],
  };
}

/** Puts a file into the layout under its hash. @returns its descriptor */
async function addBlob(layout, path, mediaType) {
  const [hash, { size }] = [await hashFile(path), statSync(path)];
  mkdirSync(join(layout, "blobs/sha256"), { recursive: true });
  renameSync(path, join(layout, "blobs/sha256", hash));
  return { mediaType, digest: `sha256:${hash}`, size };
}

async function addJson(layout, value, mediaType) {
  place(join(layout, "new.json"), JSON.stringify(value));
  return await addBlob(layout, join(layout, "new.json"), mediaType);
}

/** @returns the archive's path, below the root if `target` is */
export async function buildImage(architecture, seconds, target = releaseFolder) {
  const stage = makeStage(`image-${architecture}`);
  const [rootfs, layout, layer] = ["root", "layout", "layer.tar"].map((name) => join(stage, name));
  for (const folder of [rootfs, layout]) mkdirSync(folder);
  await placeRoot(rootfs, architecture, seconds);
  await packTar(rootfs, layer, seconds);
  const { size } = statSync(layer);
  if (size > mostBytes) throw new Failure(`Cannot make the image: it has ${size} bytes, want at most ${mostBytes}`);
  const diffId = await hashFile(layer);
  await need("compress the image", "gzip", ["-nf", layer]);
  const oci = (name) => `application/vnd.oci.image.${name}`;
  const layerBlob = await addBlob(layout, `${layer}.gz`, oci("layer.v1.tar+gzip"));
  const config = await addJson(layout, toConfig({ architecture, seconds, diffId }), oci("config.v1+json"));
  const manifestType = oci("manifest.v1+json");
  const manifest = await addJson(
    layout,
    { schemaVersion: 2, mediaType: manifestType, config, layers: [layerBlob] },
    manifestType,
  );
  const platform = { architecture: processors[architecture].image, os: "linux" };
  const annotations = { "org.opencontainers.image.ref.name": version };
  place(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const index = {
    schemaVersion: 2,
    mediaType: oci("index.v1+json"),
    manifests: [{ ...manifest, platform, annotations }],
  };
  place(join(layout, "index.json"), JSON.stringify(index));
  // Docker before 25 reads this one.
  const pathOf = ({ digest }) => `blobs/${digest.replace(":", "/")}`;
  const forDocker = [{ Config: pathOf(config), RepoTags: [`tensord:${version}`], Layers: [pathOf(layerBlob)] }];
  place(join(layout, "manifest.json"), JSON.stringify(forDocker));
  const archive = `${target}/tensord-${version}-linux-${architecture}.image.tar`;
  await packTar(layout, resolve(root, archive), seconds);
  return archive;
}
