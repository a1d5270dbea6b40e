/** `purge`: removes everything of an instance whose server is not running, and nothing else. */

import { lstatSync, readdirSync, unlinkSync } from "node:fs";
import { InstanceDirectory, type InstanceLocation, toInstancePath } from "../../memory/storage/instance-directory.ts";
import { openOfflineStorages } from "./offline-storages.ts";
import { toBytes, toJson } from "./table.ts";

/**
 * Deletes every region of the instance, leased ones too: who maps one keeps its bytes until it lets go.
 * @throws TensordError if a server runs on the instance.
 */
export async function purge(location: InstanceLocation, dryRun: boolean, asJson: boolean): Promise<string> {
  const path = toInstancePath(location);
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) {
    return asJson
      ? toJson({ regions: 0, freed_bytes: 0, leased: 0, dry_run: dryRun })
      : `nothing to purge: ${path} is not there`;
  }
  using directory = InstanceDirectory.open(location);
  using opened = await openOfflineStorages(directory);
  const files = [...opened.storages.all].flatMap((storage) =>
    storage.names.kept().map((file) => ({ storage, ...file })),
  );
  // Of what only points at a file nothing is freed.
  const bytes = files.reduce((sum, { storage, byteSize }) => sum + (storage.origin === undefined ? byteSize : 0), 0);
  const leased = files.filter(({ storage, token }) => storage.memory.usage(token)?.leased === true).length;
  if (!dryRun) {
    for (const storage of opened.shm) {
      for (const { token, identity } of storage.names.kept()) {
        storage.names.withdraw(token, identity);
        storage.memory.remove(token);
      }
    }
    for (const { token } of opened.files.names.kept()) await opened.files.memory.free(token);
    await opened.holder.end();
    for (const name of readdirSync(directory.path("new"))) unlinkSync(directory.path("new", name));
    directory.remove();
  }
  if (asJson) return toJson({ regions: files.length, freed_bytes: bytes, leased, dry_run: dryRun });
  const mapped = leased === 0 ? "" : `; ${leased} of them are still mapped, their bytes go with the last mapping`;
  return `${dryRun ? "would purge" : "purged"} ${files.length} regions, ${toBytes(bytes)}, of instance ${location.instance}${mapped}`;
}
