/** Whether this process runs in a pod, where what to do about a server that is not there is another thing. */

/** What to do about a server that is not there: in a pod nobody starts one, but its volume may not be mounted here. */
export function howToStart(elsewhere: string, env: Readonly<Record<string, string | undefined>> = process.env): string {
  // The kubelet sets it in every container.
  if (!env.KUBERNETES_SERVICE_HOST) return elsewhere;
  return (
    "Mount the sidecar's volume in this container, by the subPath and at the path that TENSORD_SHM_DIR names (docs/kubernetes.md), and " +
    "look whether the sidecar runs: kubectl logs <pod> -c tensord."
  );
}
