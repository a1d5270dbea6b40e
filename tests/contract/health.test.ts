/** The health listener: three paths, on an address of its own, before there is a store and while it stops. */

import { describe, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { parseConfig } from "../../src/server/config.ts";
import { HealthListener } from "../../src/server/health.ts";
import { Metrics } from "../../src/server/metrics.ts";
import { checkProblem, toAnswer } from "../harness/answers.ts";
import { TestApp, withApp } from "../harness/app.ts";
import { RawClient, unwatched } from "./support/socket.ts";

/** A test's body with a listener that has no store yet. */
function withHealth(use: (url: string, health: HealthListener) => Promise<void>, host = "127.0.0.1") {
  return async function useHealth() {
    const mistakes: unknown[] = [];
    const health = new HealthListener(new Metrics("0.0.0"), (error) => mistakes.push(error), unwatched());
    const url = health.start({ host, port: 0 });
    try {
      await use(url, health);
    } finally {
      await health.stop();
    }
    expect(mistakes).toEqual([]);
  };
}

const ask = async (url: string, init?: RequestInit) => toAnswer(await fetch(url, init));

describe("while regions are brought back", () => {
  test(
    "the process is live and not ready",
    withHealth(async (url) => {
      expect(await ask(`${url}/livez`)).toMatchObject({ status: 200, body: { status: "ok" } });
      const answer = await ask(`${url}/readyz`);
      checkProblem(answer);
      expect(answer).toMatchObject({ status: 503, body: { code: "not-ready" } });
      expect(answer.headers.get("retry-after")).toBe("1");
    }),
  );

  test(
    "there are metrics of the process, and none of books that nobody has read yet",
    withHealth(async (url) => {
      const { status, headers, body } = await ask(`${url}/metrics`);
      expect([status, headers.get("content-type")]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"]);
      expect(body).toContain("tensord_process_start_time_seconds ");
      expect(body).not.toContain("tensord_models");
    }),
  );

  test(
    "the metrics are OpenMetrics for a scraper that asks for them",
    withHealth(async (url) => {
      const { headers, body } = await ask(`${url}/metrics`, { headers: { accept: "application/openmetrics-text" } });
      expect(headers.get("content-type")).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
      expect(headers.get("vary")).toBe("Accept");
      expect(body).toEndWith("\n# EOF\n");
    }),
  );
});

test("once there is a store the process is ready, until it stops; and it stays live", async () => {
  const app = await TestApp.open();
  await withHealth(async (url, health) => {
    health.ready(() => app.store.refuseIfStopping());
    expect(await ask(`${url}/readyz`)).toMatchObject({ status: 200, body: { status: "ok" } });
    app.store.stop();
    const answer = await ask(`${url}/readyz`);
    checkProblem(answer);
    expect(answer).toMatchObject({ status: 503, body: { code: "shutting-down" } });
    expect((await ask(`${url}/livez`)).status).toBe(200);
  })();
  await app.close();
});

describe("the health listener", () => {
  test(
    "answers HEAD as GET, without a body",
    withHealth(async (url) => {
      expect(await ask(`${url}/livez`, { method: "HEAD" })).toMatchObject({ status: 200, body: undefined });
      expect(await ask(`${url}/readyz`, { method: "HEAD" })).toMatchObject({ status: 503, body: undefined });
    }),
  );

  test(
    "has nothing else, whatever the API has there",
    withHealth(async (url) => {
      for (const path of [
        "/",
        "/v1/regions",
        "/v1/stats",
        "/openapi.json",
        "/docs",
        "/livez/",
        "/metrics/x",
        "/LIVEZ",
      ]) {
        const answer = await ask(url + path);
        checkProblem(answer);
        expect(answer).toMatchObject({ status: 404, body: { code: "route-not-found" } });
      }
    }),
  );

  test(
    "only reads",
    withHealth(async (url) => {
      for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
        const answer = await ask(`${url}/livez`, { method, body: "x" });
        checkProblem(answer);
        expect(answer).toMatchObject({ status: 405, body: { code: "method-not-allowed" } });
        expect(answer.headers.get("allow")).toBe("GET, HEAD, OPTIONS");
      }
    }),
  );

  test("answers OPTIONS: of a path with what it takes, of / as /readyz, which is what haproxy asks unless told", async () => {
    const app = await TestApp.open();
    await withHealth(async (url, health) => {
      for (const path of ["/livez", "/readyz", "/metrics"]) {
        const { status, headers, body } = await ask(url + path, { method: "OPTIONS" });
        expect({ status, body }).toEqual({ status: 204, body: undefined });
        expect(headers.get("allow")).toBe("GET, HEAD, OPTIONS");
      }
      expect((await ask(`${url}/v1/regions`, { method: "OPTIONS" })).status).toBe(404);
      const states = async () => {
        using client = new RawClient(Number(new URL(url).port));
        await client.send("OPTIONS / HTTP/1.0\r\n\r\n");
        return (await client.last())?.status;
      };
      expect(await states()).toBe(503);
      health.ready(() => app.store.refuseIfStopping());
      expect(await states()).toBe(204);
      app.store.stop();
      expect(await states()).toBe(503);
    })();
    await app.close();
  });

  test(
    "does not mind by which name it is called: probes come by the pod's address",
    withHealth(async (url) => {
      expect((await ask(`${url}/livez`, { headers: { host: "10.1.2.3:7412" } })).status).toBe(200);
    }),
  );

  for (const [how, lines] of Object.entries({
    "HTTP/1.0 without a Host": [],
    "HTTP/1.0 with a Host": ["Host: 10.1.2.3"],
    "HTTP/1.0 with a Host that is none": ["Host: a b"],
    "HTTP/1.1 with a Host that is none": ["Host: a b"],
    "HTTP/1.1 with an empty Host": ["Host:"],
  })) {
    test(
      `answers ${how}`,
      withHealth(async (url) => {
        const version = how.slice(0, "HTTP/1.x".length);
        const asked = async (request: string) => {
          using client = new RawClient(Number(new URL(url).port));
          await client.send(`${[`${request} ${version}`, ...lines].join("\r\n")}\r\n\r\n`);
          return await client.answer();
        };
        expect(await asked("GET /livez")).toMatchObject({ status: 200, body: '{"status":"ok"}' });
        expect(await asked("GET /livez?probe=1")).toMatchObject({ status: 200 });
        expect(await asked("GET /readyz")).toMatchObject({ status: 503 });
        expect(await asked("GET //livez")).toMatchObject({ status: 404 });
        expect(await asked("CONNECT livez:443")).toMatchObject({ status: 404 });
        expect(await asked("PURGE /livez")).toMatchObject({ status: 405 });
      }),
    );
  }

  test("listens on all interfaces where no host is named", async () => {
    const health = new HealthListener(new Metrics("0.0.0"), () => {}, unwatched());
    const { port } = new URL(health.start({ host: undefined, port: 0 }));
    expect((await fetch(`http://127.0.0.1:${port}/livez`)).status).toBe(200);
    await health.stop();
  });

  test(
    "says that its address is in use, and what to do",
    withHealth(async (url) => {
      const health = new HealthListener(new Metrics("0.0.0"), () => {}, unwatched());
      const { port } = new URL(url);
      expect(() => health.start({ host: "127.0.0.1", port: Number(port) })).toThrow(
        `Cannot listen for probes on 127.0.0.1, port ${port}: the address is in use`,
      );
      await health.stop();
    }),
  );

  test("says that an address is not this machine's", () => {
    const health = new HealthListener(new Metrics("0.0.0"), () => {}, unwatched());
    expect(() => health.start({ host: "192.0.2.1", port: 0 })).toThrow(/^Cannot listen for probes on 192\.0\.2\.1/);
  });

  test(
    "answers a mistake of ours with an id and nothing else",
    withApp(async (app) => {
      const mistakes: unknown[] = [];
      const broken = { render: () => Promise.reject(new Error("the key is under the mat")) } as unknown as Metrics;
      const health = new HealthListener(broken, (error) => mistakes.push(error), unwatched());
      health.ready(() => app.store.refuseIfStopping());
      const answer = await ask(`${health.start({ host: "127.0.0.1", port: 0 })}/metrics`);
      await health.stop();
      expect(answer).toMatchObject({ status: 500, body: { code: "internal" } });
      expect(JSON.stringify(answer.body)).not.toContain("mat");
      expect(mistakes).toHaveLength(1);
    }),
  );
});

describe("TENSORD_HEALTH_ADDRESS", () => {
  const parse = (text: string) => parseConfig({ TENSORD_HEALTH_ADDRESS: text }).healthAddress;

  test("is a host and a port, or a port of all interfaces, or nowhere", () => {
    expect(parse("")).toBeUndefined();
    expect(parse(":7412")).toEqual({ host: undefined, port: 7412 });
    expect(parse("0.0.0.0:0")).toEqual({ host: "0.0.0.0", port: 0 });
    expect(parse("[::]:65535")).toEqual({ host: "::", port: 65_535 });
    expect(parse("[fd00::1]:7412")).toEqual({ host: "fd00::1", port: 7412 });
    expect(parse("localhost:7412")).toEqual({ host: "localhost", port: 7412 });
  });

  for (const text of [
    "7412",
    "host",
    "host:",
    ":-1",
    ":65536",
    "::1:7412",
    "http://host:1",
    ":74 12",
    "a/b:1",
    ":999999",
  ]) {
    test(`is not ${JSON.stringify(text)}`, () => {
      expect(() => parse(text)).toThrow(TensordError);
      expect(() => parse(text)).toThrow(/TENSORD_HEALTH_ADDRESS \(--health-address\) is ".*", want /);
    });
  }
});
