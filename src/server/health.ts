/**
 * A listener of its own for probes and scrapers, who reach the machine's address and not loopback: `/livez`, `/readyz` and
 * `/metrics`, and nothing else. It reads only, is up before recovery begins, and stays until the server is gone.
 */

import { TensordError } from "../memory/error.ts";
import { KiB } from "../memory/limits.ts";
import { toProblem, toProblemResponse } from "../routes/problem.ts";
import { secure } from "./access/secure.ts";
import type { HealthAddress } from "./config.ts";
import type { Connections } from "./connections.ts";
import type { Metrics } from "./metrics.ts";
import { boundSocketBuffers } from "./socket-buffers.ts";
import { toWholeUrl } from "./whole-url.ts";

const allowed = "GET, HEAD, OPTIONS";

type OnUnexpected = (error: unknown, requestId?: string) => void;

export class HealthListener {
  readonly #metrics: Metrics;
  readonly #onUnexpected: OnUnexpected;
  readonly #connections: Connections;
  #server: Bun.Server<undefined> | undefined;
  #refuse: (() => void) | undefined;

  constructor(metrics: Metrics, onUnexpected: OnUnexpected, connections: Connections) {
    this.#connections = connections;
    this.#metrics = metrics;
    this.#onUnexpected = onUnexpected;
  }

  /** Listens; not ready yet. @returns the URL, with the port that 0 became. @throws TensordError `io-error`. */
  start(address: HealthAddress): string {
    // Without IPv6 the kernel refuses to listen on all interfaces of both kinds.
    const hosts = address.host === undefined ? ["::", "0.0.0.0"] : [address.host];
    this.#server = hosts.reduce<Bun.Server<undefined> | undefined>(
      (server, host, index) => server ?? this.#tryListen(host, address.port, index === hosts.length - 1),
      undefined,
    );
    boundSocketBuffers();
    if (this.#server !== undefined) this.#connections.add(this.#server, "probes");
    const { hostname = "", port } = this.#server ?? {};
    return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  }

  #tryListen(hostname: string, port: number, isLast: boolean): Bun.Server<undefined> | undefined {
    try {
      const fetch = async (request: Request, server: Bun.Server<undefined>) => {
        using _ = this.#connections.ask(server, request);
        return secure(await this.#handle(request));
      };
      return Bun.serve({ hostname, port, maxRequestBodySize: KiB, fetch });
    } catch (error) {
      const { code = "unknown" } = error as NodeJS.ErrnoException;
      const isInUse = code === "EADDRINUSE";
      if (!isLast && !isInUse) return undefined;
      const state = isInUse ? "the address is in use" : (error as Error).message;
      throw new TensordError(
        "io-error",
        `Cannot listen for probes on ${hostname}, port ${port}: ${state}`,
        { errno: code, hint: "Choose another TENSORD_HEALTH_ADDRESS, or leave it empty." },
        { cause: error },
      );
    }
  }

  /** From now on it is ready whenever `refuseUnlessReady` throws nothing. */
  ready(refuseUnlessReady: () => void): void {
    this.#refuse = refuseUnlessReady;
  }

  async stop(): Promise<void> {
    await this.#server?.stop(true);
  }

  async #handle(request: Request): Promise<Response> {
    try {
      return await this.#answer(request, URL.parse(toWholeUrl(request))?.pathname ?? "");
    } catch (error) {
      const id = crypto.randomUUID();
      const response = toProblemResponse(toProblem(error, id, (cause) => this.#onUnexpected(cause, id)));
      if (response.status === 405) response.headers.set("allow", allowed);
      return response;
    }
  }

  async #answer({ method, headers }: Request, path: string): Promise<Response> {
    const isQuestion = method === "OPTIONS";
    // What haproxy asks unless it is told a path.
    if (isQuestion && path === "/") {
      this.#refuseUnlessReady();
      return new Response(null, { status: 204, headers: { allow: "OPTIONS" } });
    }
    if (path !== "/livez" && path !== "/readyz" && path !== "/metrics") {
      throw new TensordError(
        "route-not-found",
        `Cannot find ${JSON.stringify(path.slice(0, 200))}: this is for probes`,
        {
          hint: "Ask /livez, /readyz or /metrics. The API listens on TENSORD_SOCKET and TENSORD_HOST.",
        },
      );
    }
    if (isQuestion) return new Response(null, { status: 204, headers: { allow: allowed } });
    if (method !== "GET" && method !== "HEAD") {
      throw new TensordError("method-not-allowed", `Cannot ${method} ${path}: it takes GET, HEAD`, {
        hint: "Use GET.",
      });
    }
    if (path === "/metrics") {
      const { contentType, text } = await this.#metrics.render(headers.get("accept"));
      return new Response(text, { headers: { "content-type": contentType, vary: "Accept" } });
    }
    if (path === "/readyz") this.#refuseUnlessReady();
    return Response.json({ status: "ok" });
  }

  #refuseUnlessReady(): void {
    if (this.#refuse !== undefined) return this.#refuse();
    throw new TensordError("not-ready", "Cannot take requests yet: the server is still bringing its regions back", {
      hint: "Ask again in a moment.",
    });
  }
}
