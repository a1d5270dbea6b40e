/** Mistakes in what the server makes in a pod's volume, and in what is said there. */

const directory = "src/memory/storage/shm-directory.ts";
const test = "tests/integration/pod-directory.test.ts";

export const podMutations = [
  {
    name: "a directory in a pod's volume is not sticky",
    file: directory,
    find: "const mode = 0o3770;",
    replace: "const mode = 0o2770;",
    test: [test, "takes nobody's away"],
  },
  {
    name: "a missing shared directory is made on a disk, too",
    file: directory,
    find: "  if (!isOnTmpfs(dirname(shown))) return;\n",
    replace: "",
    test: [test, "stays a mistake"],
  },
  {
    name: "in a pod one is told to start a server",
    file: "src/memory/host/pod.ts",
    find: "  if (!env.KUBERNETES_SERVICE_HOST) return elsewhere;\n",
    replace: "  if (env !== undefined) return elsewhere;\n",
    test: [test, "mount the volume, and not to start a server"],
  },
];
