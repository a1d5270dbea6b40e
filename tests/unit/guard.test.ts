import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { createHostGuard } from "../../src/server/guard.ts";

function isLetIn(
  host: string,
  port: number,
  headers: Readonly<Record<string, string>>,
  allowed: readonly string[] = [],
): boolean {
  try {
    createHostGuard(host, port, allowed)(new Headers(headers));
    return true;
  } catch (error) {
    if (error instanceof TensordError && error.code === "forbidden") return false;
    throw error;
  }
}

describe("createHostGuard", () => {
  const ours = ["localhost:7411", "127.0.0.1:7411", "[::1]:7411", "LocalHost:7411"];

  for (const host of ours) {
    test(`lets ${host} in, without an Origin and with each of our own`, () => {
      expect(isLetIn("127.0.0.1", 7411, { host })).toBeTrue();
      for (const origin of ours) {
        expect(isLetIn("127.0.0.1", 7411, { host, origin: `http://${origin}` })).toBeTrue();
      }
    });
  }

  test("lets the bound address in, also one of the others that loop back", () => {
    expect(isLetIn("127.0.0.5", 7411, { host: "127.0.0.5:7411" })).toBeTrue();
    expect(isLetIn("127.0.0.5", 7411, { host: "127.0.0.6:7411" })).toBeFalse();
    expect(isLetIn("::1", 7411, { host: "[::1]:7411", origin: "http://[::1]:7411" })).toBeTrue();
    expect(isLetIn("::1", 7411, { host: "::1:7411" })).toBeFalse();
  });

  for (const host of ["localhost", "127.0.0.1", "[::1]", "localhost:80", "localhost:8080", "[::1]:65535"]) {
    test(`lets ${host} in on any port of ours, as what forwards another port passes it on, and a page from there`, () => {
      expect(isLetIn("127.0.0.1", 7411, { host })).toBeTrue();
      for (const scheme of ["http", "https"]) {
        expect(isLetIn("127.0.0.1", 7411, { host, origin: `${scheme}://${host}` })).toBeTrue();
      }
      expect(isLetIn("127.0.0.1", 7411, { host, origin: "http://localhost:8081" })).toBeFalse();
      expect(isLetIn("127.0.0.1", 7411, { host, origin: "http://127.0.0.1:8080" })).toBeFalse();
    });
  }

  test("takes an Origin without a port for port 80, as HTTP does", () => {
    expect(isLetIn("127.0.0.1", 80, { host: "localhost", origin: "http://127.0.0.1" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 80, { host: "localhost", origin: "http://127.0.0.1:80" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 80, { host: "localhost", origin: "https://127.0.0.1" })).toBeFalse();
    expect(isLetIn("127.0.0.1", 7411, { host: "localhost:7411", origin: "http://localhost" })).toBeFalse();
  });

  test("lets a request without a Host in, which no browser sends; not with the Origin of another's page", () => {
    expect(isLetIn("127.0.0.1", 7411, {})).toBeTrue();
    expect(isLetIn("127.0.0.1", 7411, { origin: "http://localhost:7411" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 7411, { origin: "http://localhost:8080" })).toBeFalse();
    expect(isLetIn("127.0.0.1", 7411, { origin: "http://evil.example" })).toBeFalse();
    expect(isLetIn("127.0.0.1", 7411, { host: "" })).toBeFalse();
  });

  for (const host of [
    "",
    "evil.example",
    "evil.example:7411",
    "localhost:07411",
    "localhost:",
    "localhost:741100",
    "localhost:7411:7411",
    "localhost:7411,evil.example",
    "localhost:7411.evil.example",
    "localhost.:7411",
    "xlocalhost:7411",
    "127.0.0.1.evil.example:7411",
    "127.1:7411",
    "2130706433:7411",
    "0x7f.0.0.1:7411",
    "[::ffff:127.0.0.1]:7411",
    "0.0.0.0:7411",
    "user@localhost:7411",
    "http://localhost:7411",
  ]) {
    test(`keeps the Host ${JSON.stringify(host)} out`, () => {
      expect(isLetIn("127.0.0.1", 7411, { host })).toBeFalse();
    });
  }

  for (const origin of [
    "",
    "null",
    "https://127.0.0.1:7411",
    "http://localhost",
    "http://localhost:7412",
    "http://localhost:7411/",
    "http://localhost:7411.evil.example",
    "http://evil.example",
    "http://evil.example:7411",
    "ws://localhost:7411",
    "file://",
    "localhost:7411",
    "http://localhost:7411, http://evil.example",
    "chrome-extension://abcdef",
  ]) {
    test(`keeps the Origin ${JSON.stringify(origin)} out, though the Host is ours`, () => {
      expect(isLetIn("127.0.0.1", 7411, { host: "localhost:7411", origin })).toBeFalse();
    });
  }

  test("lets in nothing but its own names, whatever is asked for", () => {
    const names = /^(localhost|127\.0\.0\.1|\[::1\])(:(0|[1-9]\d{0,4}))?$/;
    const part = fc.constantFrom("localhost", "127.0.0.1", "[::1]", ":", "7411", ".", "evil", "@", "0", "#", "/");
    const own = new Set(["localhost:7411", "127.0.0.1:7411", "[::1]:7411"]);
    fc.assert(
      fc.property(fc.array(part, { maxLength: 5 }), (parts) => {
        const host = parts.join("");
        expect(isLetIn("127.0.0.1", 7411, { host })).toBe(names.test(host));
        const headers = { host: "localhost:7411", origin: `http://${host}` };
        expect(isLetIn("127.0.0.1", 7411, headers)).toBe(own.has(host));
      }),
    );
  });

  describe("with hosts that the operator allows", () => {
    const allowed = ["gpu.example.com", "10.1.2.3:8443", "[fd00::1]"];
    const isIn = (headers: Readonly<Record<string, string>>) => isLetIn("127.0.0.1", 7411, headers, allowed);

    test("lets them in: on every port without one, else on that one", () => {
      for (const host of ["gpu.example.com", "GPU.example.com:8443", "10.1.2.3:8443", "[fd00::1]", "[FD00::1]:80"]) {
        expect(isIn({ host })).toBeTrue();
      }
      for (const host of [
        "10.1.2.3",
        "10.1.2.3:8444",
        "example.com",
        "a.gpu.example.com",
        "gpu.example.com.",
        "fd00::1",
      ]) {
        expect(isIn({ host })).toBeFalse();
      }
    });

    test("lets pages of their origins in, by whatever name the proxy calls the server", () => {
      for (const host of ["gpu.example.com", "127.0.0.1:7411"]) {
        expect(isIn({ host, origin: "https://gpu.example.com" })).toBeTrue();
        expect(isIn({ host, origin: "http://gpu.example.com:8080" })).toBeTrue();
        expect(isIn({ host, origin: "https://10.1.2.3:8443" })).toBeTrue();
        expect(isIn({ host, origin: "https://10.1.2.3" })).toBeFalse();
        expect(isIn({ host, origin: "https://evil.example" })).toBeFalse();
        expect(isIn({ host, origin: "ws://gpu.example.com" })).toBeFalse();
        expect(isIn({ host, origin: "https://gpu.example.com/" })).toBeFalse();
      }
    });

    test("still lets its own names in", () => {
      expect(isIn({ host: "localhost:7411", origin: "http://127.0.0.1:7411" })).toBeTrue();
    });

    test("knows no wildcard", () => {
      expect(isLetIn("127.0.0.1", 7411, { host: "evil.example" }, ["*", "*.example"])).toBeFalse();
    });
  });

  test("says which header it was, what is allowed, and shows a long value in part", () => {
    const guard = createHostGuard("127.0.0.1", 7411);
    const failureOf = (headers: Record<string, string>) => {
      try {
        guard(new Headers(headers));
      } catch (error) {
        return error as TensordError;
      }
      throw new Error("it was let in");
    };
    const host = failureOf({ host: "evil.example".repeat(1000) });
    expect(host.message).toStartWith('Cannot answer: Host is "evil.example');
    expect(host.message).toContain("want localhost, 127.0.0.1, [::1], or a host that the operator allows");
    expect(host.message.length).toBeLessThan(400);
    expect(host.facts.hint).toContain("TENSORD_ALLOWED_HOSTS");
    const origin = failureOf({ host: "localhost:7411", origin: "null" });
    expect(origin.message).toStartWith('Cannot answer: Origin is "null", want http://localhost:7411');
    expect(origin.facts.hint).toContain("Unix socket");
  });
});
