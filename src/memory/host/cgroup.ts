/**
 * Finds the memory limits above this process, of cgroup v1 and v2, in what `/proc` and `/sys` say. It is given a way to
 * read files and opens none; what the limits mean for the pool is decided in `capacity.ts`.
 */

export interface MemoryLimit {
  /** The file that says it. */
  readonly path: string;
  readonly version: 1 | 2;
  readonly maximumBytes: number;
}

/** Text of a file, or undefined if it cannot be read. */
type Read = (path: string) => string | undefined;

/**
 * A cgroup's place relative to the root of the reader's cgroup namespace, which /proc words as `/../../a/b` where it lies
 * outside (cgroup_namespaces(7)).
 */
interface Place {
  readonly ups: number;
  readonly names: readonly string[];
}

interface Mount {
  readonly version: 1 | 2;
  readonly mountPoint: string;
  /** The cgroup that appears at `mountPoint`. */
  readonly root: Place;
}

const files = { 1: "memory.limit_in_bytes", 2: "memory.max" } as const;

/**
 * The limits of the own cgroup and of each ancestor that a mount shows, from the own one upwards; a cgroup without a
 * limit has no entry, and one that several mounts show has one.
 */
export function findMemoryLimits(read: Read): readonly MemoryLimit[] {
  const own = parseOwnPlaces(read("/proc/self/cgroup") ?? "");
  const found = new Map<string, MemoryLimit>();
  const hidden: MemoryLimit[] = [];
  for (const mount of parseMounts(read("/proc/self/mountinfo") ?? "")) {
    const { version } = mount;
    const folders = visibleFolders(mount, own.get(version));
    for (const { folder, identity } of folders) {
      const path = `${folder}/${files[version]}`;
      const maximumBytes = found.has(identity) ? undefined : parseMaximum(read(path));
      if (maximumBytes !== undefined) found.set(identity, { path, version, maximumBytes });
    }
    const lowest = version === 1 ? folders[0] : undefined;
    if (lowest !== undefined) hidden.push(...findHidden(read, lowest.folder));
  }
  const limits = [...found.values()];
  const smallest = Math.min(...limits.map((limit) => limit.maximumBytes));
  const [least] = hidden.toSorted((a, b) => a.maximumBytes - b.maximumBytes);
  return least !== undefined && least.maximumBytes < smallest ? [...limits, least] : limits;
}

/** The folders of a cgroup and its ancestors under a mount, lowest first; `identity` is the same under every mount. */
function visibleFolders({ version, mountPoint, root }: Mount, place: Place | undefined) {
  const below = place === undefined ? undefined : namesBelow(root, place);
  if (below === undefined) return [];
  const depths = [...below.keys(), below.length].toReversed();
  return depths.map((depth) => {
    const names = below.slice(0, depth);
    return { folder: toPath(mountPoint, names), identity: [version, root.ups, ...root.names, ...names].join("/") };
  });
}

/**
 * Cgroup v1 also tells the smallest limit of all ancestors, those outside of the container too (cgroup-v1/memory.rst,
 * "hierarchical_memory_limit"): the only sign of a Kubernetes pod's own limit there.
 */
function findHidden(read: Read, folder: string): MemoryLimit[] {
  const path = `${folder}/memory.stat`;
  const line = (read(path) ?? "").split("\n").find((text) => text.startsWith("hierarchical_memory_limit "));
  const maximumBytes = parseMaximum(line?.slice("hierarchical_memory_limit ".length));
  return maximumBytes === undefined ? [] : [{ path, version: 1, maximumBytes }];
}

/** Lines of `/proc/self/cgroup` (cgroups(7)): `hierarchy:controllers:path`, `0::path` for v2. */
function parseOwnPlaces(text: string): Map<1 | 2, Place> {
  const places = new Map<1 | 2, Place>();
  for (const line of text.split("\n")) {
    const match = /^(\d+):([^:]*):(\/.*)$/.exec(line);
    const [, hierarchy, controllers = "", path = ""] = match ?? [];
    const place = parsePlace(path);
    if (place === undefined) continue;
    if (hierarchy === "0" && controllers === "") places.set(2, place);
    else if (controllers.split(",").includes("memory")) places.set(1, place);
  }
  return places;
}

/**
 * Lines of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): `id parent dev root point options [tags…] - type source super`.
 * Of several mounts on one point the last one is seen.
 */
function parseMounts(text: string): Mount[] {
  const mounts = new Map<string, Mount | undefined>();
  for (const line of text.split("\n")) {
    const [before = "", after = ""] = line.split(" - ", 2);
    const [, , , rootPath = "", point = ""] = before.split(" ");
    const [type = "", , options = ""] = after.split(" ");
    if (!point.startsWith("/")) continue;
    const mountPoint = unescapeOctal(point);
    const root = parsePlace(unescapeOctal(rootPath));
    const isV1 = type === "cgroup" && options.split(",").includes("memory");
    const version = type === "cgroup2" ? 2 : isV1 ? 1 : undefined;
    mounts.delete(mountPoint);
    mounts.set(mountPoint, version && root && { version, mountPoint, root });
  }
  return [...mounts.values()].filter((mount) => mount !== undefined);
}

/** `/../../a/b` as two steps up and the names `a`, `b`; undefined for what is no such path. */
function parsePlace(path: string): Place | undefined {
  if (!path.startsWith("/")) return undefined;
  const segments = path.split("/").filter((segment) => segment !== "");
  const first = segments.findIndex((segment) => segment !== "..");
  const ups = first === -1 ? segments.length : first;
  const names = segments.slice(ups);
  return names.some((name) => name === ".." || name === ".") ? undefined : { ups, names };
}

/**
 * The names that lead from a mount's root down to a place, as far as they are known; undefined if the place is elsewhere.
 * Between a root outside of the namespace and a place inside it the names are hidden: the root itself is all there is.
 */
function namesBelow(root: Place, place: Place): readonly string[] | undefined {
  if (root.ups > place.ups) return root.names.length === 0 ? [] : undefined;
  const isAbove = root.ups === place.ups && root.names.every((name, index) => name === place.names[index]);
  return isAbove ? place.names.slice(root.names.length) : undefined;
}

function toPath(mountPoint: string, names: readonly string[]): string {
  const base = mountPoint === "/" ? "" : mountPoint;
  return [base, ...names].join("/");
}

/** mountinfo writes space, tab, newline and backslash as `\040` and so on. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-3][0-7]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** "max", v1's largest number (all pages that a `long` can count) and whatever else is no size mean no limit. */
function parseMaximum(text: string | undefined): number | undefined {
  const trimmed = text?.trim() ?? "";
  if (!/^\d{1,20}$/.test(trimmed)) return undefined;
  const bytes = Number(trimmed);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
