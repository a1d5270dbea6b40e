/**
 * Looks through the shared directory for what is not this instance's: files of others by size and uid, and other
 * instances. Its work is bounded, and it changes nothing. It blocks while it works, so a server runs it in a Worker.
 */

import { closeSync, constants, fstatSync, lstatSync, readSync, type Stats } from "node:fs";
import { isOutOfDescriptors } from "../os/descriptors.ts";
import { listIfThere, openFile } from "../os/files.ts";
import { isLocked } from "../os/libc.ts";
import type { FileFacts, InstanceFacts, LockFacts, Question, ScanFacts } from "./facts.ts";
import { thresholds } from "./thresholds.ts";

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

/** An instance's directory, or one of its public names. */
const ourNames = /^tensord\.([a-z0-9-]{1,32})(?:\.([a-z2-7]{26}))?$/;

export function scanDirectory(question: Question): ScanFacts {
  return new Scan(question).run();
}

class Scan {
  readonly #question: Question;
  readonly #keep: string;
  readonly #instances = new Map<string, { uid: number; regions: number; bytes: number }>();
  readonly #owners = new Map<number, { files: number; bytes: number }>();
  readonly #linked = new Set<number>();
  #largest: FileFacts[] = [];
  #files = 0;
  #bytes = 0;
  #entries = 0;

  constructor(question: Question) {
    this.#question = question;
    this.#keep = question.held?.keep ?? `${question.shmDirectory}/tensord.${question.instance}/keep/`;
  }

  run(): ScanFacts {
    const { shmDirectory } = this.#question;
    const names = listIfThere(shmDirectory);
    for (const name of names) this.#findInstance(name);
    for (const name of names) this.#look(`${shmDirectory}/${name}`, ourNames.exec(name), 0);
    return {
      entries: this.#entries,
      isWhole: this.#hasRoom,
      foreign: {
        files: this.#files,
        bytes: this.#bytes,
        largest: this.#largest,
        owners: [...this.#owners].map(([uid, sums]) => ({ uid, ...sums })).toSorted((a, b) => b.bytes - a.bytes),
      },
      instances: this.#toInstances(),
    };
  }

  get #hasRoom(): boolean {
    return this.#entries < thresholds.scannedEntries;
  }

  /** A directory named as one of ours is what makes an instance; a file's name proves nothing. */
  #findInstance(name: string): void {
    const [, instance, token] = ourNames.exec(name) ?? [];
    if (instance === undefined || token !== undefined || instance === this.#question.instance) return;
    const stat = statIfThere(`${this.#question.shmDirectory}/${name}`);
    if (stat?.isDirectory() === true) this.#instances.set(instance, { uid: stat.uid, regions: 0, bytes: 0 });
  }

  #look(path: string, match: RegExpExecArray | null, depth: number): void {
    if (!this.#hasRoom) return;
    this.#entries += 1;
    const [, instance = "", token] = match ?? [];
    const stat = statIfThere(path);
    if (stat === undefined) return;
    if (instance === this.#question.instance && this.#isOurs(token, stat)) return;
    const other = this.#instances.get(instance);
    if (other !== undefined) {
      if (token === undefined) return;
      other.regions += 1;
      other.bytes += stat.blocks * 512;
    } else if (!stat.isDirectory()) {
      this.#addForeign(path, stat);
    } else if (depth < thresholds.scannedDepth) {
      for (const name of listIfThere(path)) this.#look(`${path}/${name}`, null, depth + 1);
    }
  }

  /** Ours is the instance's directory, and what its keeper links. Where we may not look, a name has to do. */
  #isOurs(token: string | undefined, stat: Stats): boolean {
    if (token === undefined) return stat.isDirectory();
    try {
      const kept = lstatSync(this.#keep + token, { throwIfNoEntry: false });
      return kept?.ino === stat.ino && kept.dev === stat.dev;
    } catch {
      return true;
    }
  }

  #addForeign(path: string, stat: Stats): void {
    if (stat.nlink > 1) {
      if (this.#linked.has(stat.ino)) return;
      this.#linked.add(stat.ino);
    }
    const bytes = stat.blocks * 512;
    this.#files += 1;
    this.#bytes += bytes;
    const owner = this.#owners.getOrInsert(stat.uid, { files: 0, bytes: 0 });
    owner.files += 1;
    owner.bytes += bytes;
    const least = this.#largest.at(-1);
    if (this.#largest.length === thresholds.shownItems && least !== undefined && bytes <= least.bytes) return;
    this.#largest = [...this.#largest, { path, uid: stat.uid, bytes }]
      .toSorted((a, b) => b.bytes - a.bytes)
      .slice(0, thresholds.shownItems);
  }

  #toInstances(): readonly InstanceFacts[] {
    return [...this.#instances].map(([instance, sums]) => ({
      instance,
      ...sums,
      lock: readLock(`${this.#question.shmDirectory}/tensord.${instance}/lock`),
    }));
  }
}

/** Whether a server holds an instance's lock. It is asked, never taken. */
export function readLock(path: string): LockFacts {
  let fd: number;
  try {
    // Whatever stands there, opening it must neither wait nor lead elsewhere.
    fd = openFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isOutOfDescriptors(error)) throw error;
    const isGone = (error as NodeJS.ErrnoException).code === "ENOENT";
    return { state: isGone ? "free" : "unknown", pid: null };
  }
  try {
    if (!fstatSync(fd).isFile()) return { state: "free", pid: null };
    if (!isLocked(fd, 0n, 0n)) return { state: "free", pid: null };
    const text = Buffer.alloc(16);
    const pid = /^\d+/.exec(text.toString("latin1", 0, readSync(fd, text, 0, text.length, 0)))?.[0] ?? null;
    return { state: "held", pid };
  } finally {
    closeSync(fd);
  }
}

/** Files come and go while we look, and some we may not see. */
function statIfThere(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
