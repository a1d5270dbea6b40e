/** Judges the server's process and what the machine does to it: who answers, who may ask, and what it has left. */

import { howToStart } from "../host/pod.ts";
import type { Facts } from "./facts.ts";
import { type Finding, failing, fine, warning } from "./finding.ts";
import { thresholds } from "./thresholds.ts";
import { count, listSome, percentOf } from "./words.ts";

/** Whether this diagnosis is a server's own, or that of whoever asked in vain. */
export function judgeServer({ question, host, server }: Facts): Finding {
  const check = "server";
  const { instance } = question;
  if (server !== null) {
    return fine(
      check,
      `The server of instance ${instance} answers, pid ${server.pid}, on ${server.urls.join(" and ")}.`,
    );
  }
  const alone = "what follows is seen from outside of it, as this user and in this cgroup";
  if (host.lock.state === "held") {
    const pid = host.lock.pid ?? "unknown";
    return failing(
      check,
      `A server runs on instance ${instance}, pid ${pid}, and does not answer: ${alone}.`,
      "See its log. If it is stopped or stuck, end it and start it again; regions stay.",
    );
  }
  return warning(
    check,
    `No server answers for instance ${instance}: ${alone}.`,
    howToStart("Start one with tensord serve (npm start in its repository)."),
  );
}

/** systemd-logind removes the shared memory of people who log out (logind.conf(5)). */
export function judgeRemoveIpc({ question, host }: Facts): Finding {
  const check = "remove-ipc";
  const { uid, shmDirectory } = question;
  if (!host.systemd.isRunning) return fine(check, "systemd does not run here: nobody removes shared memory at logout.");
  if (!host.systemd.removesIpc) return fine(check, "systemd's RemoveIPC is off.");
  if (uid < thresholds.firstPersonalUid) {
    return fine(check, `systemd's RemoveIPC is on, and spares uid ${uid}, which is a system user's.`);
  }
  if (shmDirectory !== "/dev/shm" && !shmDirectory.startsWith("/dev/shm/")) {
    return fine(check, `systemd's RemoveIPC is on, and touches nothing in ${shmDirectory}.`);
  }
  return warning(
    check,
    `systemd's RemoveIPC is on: when the last session of uid ${uid} ends, everything of it in ${shmDirectory} is removed.`,
    "Set RemoveIPC=no under [Login] in /etc/systemd/logind.conf.d/tensord.conf and restart systemd-logind; " +
      `or run the server as a system user (a uid under ${thresholds.firstPersonalUid}); or loginctl enable-linger.`,
  );
}

/** Loopback TCP without tokens lets in every local user. */
export function judgeTcp({ server }: Facts): Finding | undefined {
  const check = "loopback-tcp";
  if (server === null) return undefined;
  const url = server.urls.find((text) => text.startsWith("http:"));
  if (url === undefined) return fine(check, "The server listens on its Unix socket alone.");
  const { allowedHosts } = server;
  if (allowedHosts.length === 0) {
    return warning(
      check,
      `Every local user can reach ${url}: TCP asks for no token.`,
      "Set TENSORD_PORT empty, so that only those who may open the Unix socket get in.",
    );
  }
  const names = listSome(allowedHosts, thresholds.shownItems);
  return warning(
    check,
    `Every local user can reach ${url}, and so can whoever reaches what stands in front of it as ${names}: TCP asks for no token.`,
    "Let the proxy ask for a password or a certificate, and reach the server by its Unix socket; then set TENSORD_PORT empty.",
  );
}

/** Whether the kernel tells the server of public names that are unlinked. */
export function judgeWatch({ question, host, server }: Facts): Finding | undefined {
  const check = "name-watch";
  if (server === null) return undefined;
  if (host.isWatching) return fine(check, `The server watches the names in ${question.shmDirectory}.`);
  return warning(
    check,
    `The server does not watch ${question.shmDirectory}: a name that somebody unlinks comes back with the next sweep only.`,
    "Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl), and restart the server.",
  );
}

/** Whether descriptors may run out: each connection takes one. */
export function judgeOpenFiles({ host, server }: Facts): Finding {
  const check = "open-files";
  const { used } = host.openFiles;
  // The kernel tells a limit without the descriptors that a server spares.
  const limit = server?.descriptors?.limit ?? host.openFiles.limit;
  const fit = server?.descriptors?.connections;
  const cure = "Raise it: LimitNOFILE= in systemd, --ulimit nofile= in Docker, ulimit -n in a shell.";
  const whose = server === null ? "A process started here" : "The server";
  if (!Number.isFinite(limit)) return fine(check, `${whose} may open any number of files.`);
  const summary =
    server === null
      ? `${whose} may open ${limit} files.`
      : `${whose} may open ${limit} files and has ${used} open${fit === undefined ? "" : `; ${count(fit, "connection")} fit at once`}.`;
  if (server !== null && percentOf(used, limit) >= thresholds.openFilesPercent) return failing(check, summary, cure);
  return limit < thresholds.fewOpenFiles ? warning(check, summary, cure) : fine(check, summary);
}
