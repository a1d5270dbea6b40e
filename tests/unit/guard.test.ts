import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { TensordError } from "../../src/memory/error.ts";
import { createHostGuard } from "../../src/server/guard.ts";

function isLetIn(host: string, port: number, headers: Readonly<Record<string, string>>): boolean {
  try {
    createHostGuard(host, port)(new Headers(headers));
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

  test("takes a Host without a port only where HTTP leaves it out", () => {
    expect(isLetIn("127.0.0.1", 80, { host: "localhost" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 80, { host: "localhost:80" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 80, { host: "localhost", origin: "http://localhost" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 80, { host: "localhost", origin: "http://localhost:80" })).toBeTrue();
    expect(isLetIn("127.0.0.1", 80, { host: "localhost", origin: "https://localhost" })).toBeFalse();
    expect(isLetIn("127.0.0.1", 7411, { host: "localhost" })).toBeFalse();
  });

  for (const host of [
    "",
    "evil.example",
    "evil.example:7411",
    "localhost:7412",
    "localhost:07411",
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
    "https://localhost:7411",
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

  test("keeps a request without a Host out", () => {
    expect(isLetIn("127.0.0.1", 7411, {})).toBeFalse();
    expect(isLetIn("127.0.0.1", 80, {})).toBeFalse();
  });

  test("lets in nothing but its own names, whatever is asked for", () => {
    const names = new Set(["localhost:7411", "127.0.0.1:7411", "[::1]:7411"]);
    const part = fc.constantFrom("localhost", "127.0.0.1", "[::1]", ":", "7411", ".", "evil", "@", "0", "#", "/");
    fc.assert(
      fc.property(fc.array(part, { maxLength: 5 }), (parts) => {
        const host = parts.join("");
        expect(isLetIn("127.0.0.1", 7411, { host })).toBe(names.has(host));
        const headers = { host: "localhost:7411", origin: `http://${host}` };
        expect(isLetIn("127.0.0.1", 7411, headers)).toBe(names.has(host));
      }),
    );
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
    expect(host.message).toContain("want one of localhost:7411, 127.0.0.1:7411, [::1]:7411");
    expect(host.message.length).toBeLessThan(400);
    const origin = failureOf({ host: "localhost:7411", origin: "null" });
    expect(origin.message).toStartWith('Cannot answer: Origin is "null", want one of http://localhost:7411');
    expect(origin.facts.hint).toContain("Unix socket");
  });
});
