/** The region of a file that is mapped: that it points at the file as it was opened, and nothing else. */

import type { Region } from "../memory/state/region.ts";
import type { Store } from "../memory/state/store.ts";
import type { Origin } from "../memory/storage/file/origin.ts";
import type { FileLane, OpenPart, Standing } from "./file-lane.ts";
import { changed, type Source } from "./fill.ts";
import { isRemote } from "./mode.ts";

/**
 * Points the region, which nobody sees yet, at the file.
 * @returns no checksum: whoever may write to the file does not ask for one.
 * @throws TensordError `invalid-model-file` if the file changed meanwhile, `out-of-shared-memory`.
 */
export async function bindTo(store: Store, files: FileLane, source: Source, region: Region): Promise<null> {
  const { origin } = store.storages.of(region);
  const [file] = source.files;
  const { standing } = source;
  if (origin === undefined || file === undefined || standing === null) throw new Error("what is mapped is one file");
  region.identity = origin.bind(region.token, toOrigin(source, standing, file));
  store.step("load.bound");
  if (!(await files.isSame(source))) throw changed(source);
  return null;
}

function toOrigin({ root, below }: Source, standing: Standing, { signature }: OpenPart): Origin {
  const { dev, ino, size, mtimeNs } = signature;
  const identity = { dev: String(dev), ino: String(ino) };
  const state = { byteSize: Number(size), mtimeNs: String(mtimeNs), isRemote: isRemote(standing) };
  return { root, below, ...identity, ...state };
}
