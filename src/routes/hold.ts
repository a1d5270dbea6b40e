/** The hold socket of a session: open, it keeps the session alive; over it the client says what it maps, as it may to the broker, too. */

import { z } from "@hono/zod-openapi";
import { reportAttach, reportDetach } from "../memory/regions/consumers.ts";
import { holdSession } from "../memory/sessions/sessions.ts";
import type { Session } from "../memory/state/session.ts";
import type { Store } from "../memory/state/store.ts";
import type { Caller } from "./access/caller.ts";
import { mayUse } from "./access/rights.ts";
import type { Socket, SocketProtocol } from "./environment.ts";

/** What a client may say: that it mapped a region, or let go of it. */
export const Report = z.union([
  z.strictObject({ attach: z.string().max(64), writable: z.boolean().optional(), maker: z.boolean().optional() }),
  z.strictObject({ detach: z.string().max(64), maker: z.boolean().optional() }),
]);

/** Takes a client's word for what it maps. */
export function takeReport(store: Store, session: Session, caller: Caller, report: z.infer<typeof Report>): void {
  const region = store.books.regionById("attach" in report ? report.attach : report.detach);
  // A region may be gone before the report of its last mapping comes.
  // Of what it may not see it maps nothing that we handed it.
  if (region === undefined || !mayUse(caller, region.model)) return;
  const isMaker = report.maker;
  if ("attach" in report) reportAttach(store, session, region, { isMaker, writable: report.writable === true });
  else reportDetach(store, session, region, isMaker);
}

/** Told with the handshake: an earlier server closes on a report that says `maker`. */
const handshakeHeaders = { "tensord-reports": "maker" };

export function toHoldProtocol(store: Store, session: Session, caller: Caller): SocketProtocol {
  let socket: Socket | undefined;
  let release: ((closedBy: "peer" | "server") => void) | undefined;
  /** Set when we close it: that the socket then ends is no sign of the worker's death. */
  let isOurs = false;

  function close(code: number, reason: string): void {
    isOurs = true;
    socket?.close(code, reason);
  }
  const stop = () => close(1001, "the server is shutting down");
  const closeRevoked = () => close(1008, "the token was taken away, or changed");
  const closeEnded = () => close(1008, "the session has ended");

  return {
    headers: handshakeHeaders,
    open(opened) {
      socket = opened;
      // Between the handshake and now the session may have ended.
      if (session.end !== null) return closeEnded();
      release = holdSession(store, session);
      session.closers.add(closeEnded);
      store.stopping.addEventListener("abort", stop);
      caller.revoked.addEventListener("abort", closeRevoked);
    },
    message(text) {
      const report = parseReport(text);
      if (report === undefined) return close(1008, 'want {"attach": "reg_…"} or {"detach": "reg_…"}');
      takeReport(store, session, caller, report);
    },
    drain() {},
    closed(closedBy) {
      store.stopping.removeEventListener("abort", stop);
      caller.revoked.removeEventListener("abort", closeRevoked);
      session.closers.delete(closeEnded);
      release?.(isOurs || store.stopping.aborted ? "server" : closedBy);
    },
  };
}

function parseReport(text: string): z.infer<typeof Report> | undefined {
  try {
    return Report.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
