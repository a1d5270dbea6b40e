/** What of a pod's tensors survives what: the rows of the table in docs/operating.md, and the claims of `tests/faults/pod.test.ts`. */

export const podRows = {
  appKilled: ["one app is killed", "all, and what others map; what it alone mapped and is to go, goes at once"],
  sidecarStopped: [
    "SIGTERM to the sidecar, and it starts again",
    "all: bytes, names, seals; who maps goes on meanwhile",
  ],
  sidecarOutOfMemory: [
    "the sidecar is killed for want of memory, without `memory.oom.group` (run on cgroup v1)",
    "the same",
  ],
  sidecarOutOfMemoryAsGroup: [
    "the same with `memory.oom.group` (cgroup v2)",
    "the same; not run yet: no such machine was at hand",
  ],
  appAttacks: [
    "an app of another user that mounts the directory renames, removes, fills",
    "all: it may rename and remove nothing; while the volume is full creations are answered 507, until its file goes",
  ],
  appWithVolume: [
    "an app that mounts the whole volume renames the directory",
    "who maps goes on, and nobody new finds the server; the doctor says where it is (`moved-directory`)",
  ],
  noGroup: ["no `fsGroup`", "all, for the server's own user; another is refused, and told of the group"],
  smallVolume: ["a volume of 64 MiB", "the start warns, and what does not fit is a 507"],
  ownUsers: [
    "a user namespace of the pod's own (`hostUsers: false`), and SIGKILL to the sidecar",
    "all, as without one",
  ],
  preloaded: [
    "a model of `TENSORD_PRELOAD`, in a new pod, and after SIGTERM to the sidecar",
    "it is there before the sidecar is ready, and with it before an app; the restart finds the same region",
  ],
  podDeleted: ["the pod is deleted", "nothing: volume, processes and cgroups are gone"],
} as const satisfies Record<string, readonly [event: string, survives: string]>;

/** A test's name. */
export const claimOf = (row: keyof typeof podRows): string => podRows[row].join(": ");
