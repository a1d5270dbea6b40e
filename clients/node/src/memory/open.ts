/**
 * Opens a region's file: by its name, or, where that cannot be reached, by a descriptor of the server's broker. Which of them it
 * was, the file says; everything else is the same for whoever needs it.
 */

import { fstatSync } from "node:fs";
import { isTensordError, TensordError } from "../errors.ts";
import { Barred, checkHanded, Mismatch, type NamedPlace, neither, openByName, type Place } from "./attach.ts";
import type { Asked, DescriptorSource, Handed } from "./descriptor-source.ts";
import { HeldFile } from "./held-file.ts";
import { giveUpLease, type Role } from "./lease.ts";
import { isOrigin, openOrigin } from "./origin-file.ts";

/** How a region's file was reached. */
export type AttachedBy = "name" | "descriptor" | "copy";

export interface Opening {
  readonly isWriter: boolean;
  /** Whether the file is to be mapped: it holds the lease then, for as long as a mapping of it is left. */
  readonly isLeased: boolean;
  /** Whether it is memory of a device, whose descriptor comes with the file; only the broker has it. */
  readonly isOnDevice?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** A region's file. It holds no lease unless that was asked for. Close it. */
export interface RegionFile {
  readonly file: HeldFile;
  /** The driver's descriptor, if the opening said that it is on a device. Close it, too. */
  readonly handle?: HeldFile | undefined;
  readonly by: AttachedBy;
  /** Where it is, and, if the broker said so, whose. */
  readonly place: Place;
}

/** The size of an open file. */
export function sizeOf({ file }: RegionFile): number {
  return Number(fstatSync(file.fd, { bigint: true }).size);
}

/**
 * The file at `place`, checked, and leased if that is asked for.
 * @throws Mismatch, Barred, TensordError `access-denied`, `wrong-namespace`, `mapping-failed`, `out-of-descriptors`, what the
 *   broker says; neither descriptor nor lock is left then
 */
export async function openFile(place: Place, opening: Opening): Promise<RegionFile> {
  const named = tryName(place, opening);
  if (!(named instanceof Unreached)) return named;
  try {
    return toFile(await named.broker.attach(toAsked(place, opening), opening.signal), place, opening);
  } catch (error) {
    throw named.orBroker(error);
  }
}

/** As `openFile`, at once. */
export function openFileNow(place: Place, opening: Opening): RegionFile {
  const named = tryName(place, opening);
  if (!(named instanceof Unreached)) return named;
  try {
    return toFile(named.broker.attachNow(toAsked(place, opening)), place, opening);
  } catch (error) {
    throw named.orBroker(error);
  }
}

const gone = ["region-not-found", "region-draining"];
/** What it says of the way to the broker. */
const ways = ["wrong-namespace", "access-denied", "server-unavailable", "feature-unavailable"];

/** A name that does not lead to the file, though the file may be there. */
class Unreached {
  readonly broker: DescriptorSource;
  readonly #place: Place;
  readonly #byName: Mismatch | TensordError | undefined;

  /** @param byName what failed, if there is a name. */
  constructor(broker: DescriptorSource, place: Place, byName?: Mismatch | TensordError) {
    this.broker = broker;
    this.#place = place;
    this.#byName = byName;
  }

  /** What to throw after the broker did not hand it out either. */
  orBroker(error: unknown): unknown {
    // What it handed out is another file than was described: so the name may be right, and looked for elsewhere.
    if (error instanceof Mismatch && this.#byName instanceof Mismatch) return this.#byName;
    if (!isTensordError(error)) return error;
    const { code, detail } = error;
    if (gone.includes(code)) return new Mismatch(this.#place, "is gone, as the server says", "gone");
    if (code === "region-sealed") return new Mismatch(this.#place, "is sealed", "sealed");
    if (!ways.includes(code)) return error;
    const byName = this.#byName;
    if (byName instanceof Mismatch) return byName.without(error);
    if (byName !== undefined) return neither(byName, error);
    return new TensordError(code, `Cannot map region ${this.#place.region}, which has no name here: ${detail}`, {
      hint: error.hint,
      cause: error,
    });
  }
}

function tryName(place: Place, { isWriter, isLeased }: Opening): RegionFile | Unreached {
  const { broker, copy } = place;
  if (copy !== undefined) return { file: copy.open(isWriter), by: "copy", place };
  if (isOrigin(place) && isNamed(place)) {
    return { file: new HeldFile(openOrigin(place, isWriter)), by: "name", place };
  }
  try {
    if (isNamed(place)) return { file: new HeldFile(openByName(place, isWriter, isLeased)), by: "name", place };
  } catch (error) {
    if (broker === undefined || !isUnreached(error, place)) throw error;
    return new Unreached(broker, place, error);
  }
  if (broker !== undefined) return new Unreached(broker, place);
  throw new TensordError("feature-unavailable", `Cannot map region ${place.region}: it has no name to open`, {
    hint: "open it through a client, which asks the server's broker",
  });
}

function isNamed(place: Place): place is NamedPlace {
  return place.path !== null;
}

function isUnreached(error: unknown, { isSure = false }: Place): error is Mismatch | TensordError {
  if (error instanceof Mismatch) return error.isElsewhere || (isSure && error.difference === "other");
  return isTensordError(error, "access-denied");
}

function toAsked({ region, role = "consumer" }: Place, { isWriter }: Opening): Asked {
  return { region, access: isWriter ? "rw" : "ro", lease: leases[role] };
}

const leases = { consumer: "consumer", maker: "maker", builder: "both" } as const satisfies Record<
  Role,
  Asked["lease"]
>;

function toFile({ file, handle, isLeased, instance }: Handed, place: Place, opening: Opening): RegionFile {
  try {
    const { isOnDevice = false } = opening;
    if (isOnDevice !== (handle !== undefined)) {
      const sent = isOnDevice ? "no descriptor of the device's memory" : "a descriptor of a device's memory";
      throw new TensordError("server-fault", `Cannot map region ${place.region}: the broker sent ${sent}`);
    }
    if (place.instance !== undefined && place.instance !== instance) {
      throw new TensordError(
        "wrong-namespace",
        `Cannot map region ${place.region}: it is of instance ${place.instance}, and this client's server is ${instance}`,
        { hint: "open it with a client of that instance (TENSORD_INSTANCE, TENSORD_URL)" },
      );
    }
    checkHanded(file.fd, place);
    // A description for locks alone keeps nothing alive, by whichever way it came.
    if (!opening.isLeased) giveUpLease(file.fd);
    else if (!isLeased) throw barred(place);
    return { file, handle, by: "descriptor", place: { ...place, instance } };
  } catch (error) {
    file.close();
    handle?.close();
    throw error;
  }
}

function barred({ region }: Place): Barred {
  const detail = `Cannot map region ${region}: another process write-locks the lease bytes of its file`;
  return new Barred("mapping-failed", detail, { hint: "`tensord doctor` tells which" });
}
