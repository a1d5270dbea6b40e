import { describe, expect, test } from "bun:test";
import { TensordError } from "../../src/memory/error.ts";
import { limits, MiB } from "../../src/memory/limits.ts";
import { parseConfig, type SettingName, settings } from "../../src/server/config.ts";

function failureOf(environment: Record<string, string>, flags?: Record<string, string>): TensordError {
  try {
    parseConfig(environment, flags);
  } catch (error) {
    if (error instanceof TensordError) return error;
    throw error;
  }
  throw new Error(`accepted: ${JSON.stringify({ environment, flags })}`);
}

describe("parseConfig", () => {
  test("has a default for everything", () => {
    expect(parseConfig({})).toEqual({
      host: "127.0.0.1",
      port: 7411,
      allowedHosts: [],
      tokensFile: undefined,
      socket: undefined,
      brokerSocket: undefined,
      instance: "default",
      shmDirectory: "/dev/shm",
      storages: undefined,
      modelRoots: [],
      preload: undefined,
      memoryLimitBytes: undefined,
      reserveBytes: undefined,
      holderTtlMs: 600_000,
      holderSocket: undefined,
      healthAddress: undefined,
      logLevel: "info",
    });
  });

  test("reads each setting from its variable and from its flag", () => {
    const texts: Record<SettingName, readonly [text: string, value: unknown]> = {
      host: ["::1", "::1"],
      port: ["0", 0],
      allowedHosts: ["gpu.example.com, 10.0.0.1:8443", ["gpu.example.com", "10.0.0.1:8443"]],
      tokensFile: ["/etc/tensord/tokens.json", "/etc/tensord/tokens.json"],
      socket: ["/run/tensord.sock", "/run/tensord.sock"],
      brokerSocket: ["/run/tensord-broker.sock", "/run/tensord-broker.sock"],
      instance: ["a-1", "a-1"],
      shmDirectory: ["/mnt/shm", "/mnt/shm"],
      storages: ["memfd, heap", ["memfd", "heap"]],
      modelRoots: ["/models/, s3://weights/llama/", ["/models", "s3://weights/llama"]],
      preload: ["/etc/tensord/models.yaml", "/etc/tensord/models.yaml"],
      memoryLimitBytes: ["1073741824", 1_073_741_824],
      reserveBytes: ["0", 0],
      holderTtlMs: ["60000", 60_000],
      holderSocket: ["/run/tensord/fd-holder.sock", "/run/tensord/fd-holder.sock"],
      healthAddress: [":7412", { host: undefined, port: 7412 }],
      logLevel: ["silent", "silent"],
    };
    for (const name of Object.keys(settings) as SettingName[]) {
      const [text, value] = texts[name];
      expect(parseConfig({ [settings[name].variable]: text })[name]).toEqual(value as never);
      expect(parseConfig({}, { [name]: text })[name]).toEqual(value as never);
    }
  });

  test("lets a flag win over the environment, even if what stands there is wrong", () => {
    const environment = { TENSORD_PORT: "not a port", TENSORD_HOST: "0.0.0.0" };
    expect(parseConfig(environment, { port: "80", host: "localhost" })).toMatchObject({ port: 80, host: "localhost" });
  });

  for (const roots of ["s3://", "s3://B", "s3://a/b", "s3://-bucket/x", "s3://bucket/../x", "s3:/bucket"]) {
    test(`refuses the model roots ${roots}`, () => {
      expect(failureOf({ TENSORD_MODEL_ROOTS: roots }).message).toContain("want ");
    });
  }

  for (const roots of ["models", "/", "/models,../up"]) {
    test(`refuses the model roots ${roots}`, () => {
      expect(failureOf({ TENSORD_MODEL_ROOTS: roots }).message).toContain("want absolute paths");
    });
  }

  test("turns TCP off with an empty port, and takes empty for the default where there is one", () => {
    expect(parseConfig({ TENSORD_PORT: "" }).port).toBeUndefined();
    expect(parseConfig({ TENSORD_SOCKET: "", TENSORD_MEMORY_LIMIT_BYTES: "" })).toMatchObject({
      socket: undefined,
      memoryLimitBytes: undefined,
    });
  });

  test("reports all mistakes at once, each with its variable, its flag, its value and what is wanted", () => {
    const { message, code, facts } = failureOf(
      {
        TENSORD_HOST: "0.0.0.0",
        TENSORD_PORT: "70000",
        TENSORD_SOCKET: "relative.sock",
        TENSORD_INSTANCE: "My Instance",
        TENSORD_SHM_DIR: "shm",
        TENSORD_MEMORY_LIMIT_BYTES: "1GiB",
        TENSORD_PROT: "7411",
      },
      { logLevel: "loud" },
    );
    expect(code).toBe("validation-failed");
    for (const words of [
      'TENSORD_HOST (--host) is "0.0.0.0", want a loopback address',
      'TENSORD_PORT (--port) is "70000", want at most 65535',
      'TENSORD_SOCKET (--socket) is "relative.sock", want an absolute path',
      'TENSORD_INSTANCE (--instance) is "My Instance", want 1 to 32 of a-z 0-9 -',
      'TENSORD_SHM_DIR (--shm-dir) is "shm", want an absolute path',
      'TENSORD_MEMORY_LIMIT_BYTES (--memory-limit-bytes) is "1GiB", want an integer',
      'TENSORD_LOG_LEVEL (--log-level) is "loud"',
      "TENSORD_PROT is no setting; want one of TENSORD_HOST, TENSORD_PORT",
    ]) {
      expect(message).toContain(words);
    }
    expect(message).toStartWith("Cannot start: ");
    expect(facts.hint).toContain("docs/operating.md");
  });

  for (const host of [
    "0.0.0.0",
    "::",
    "[::1]",
    "192.168.1.1",
    "10.0.0.1",
    "example.com",
    "*",
    "",
    "localhost.evil",
    "127.0.0.1:80",
  ]) {
    test(`refuses the address ${JSON.stringify(host)}, where others could reach it`, () => {
      expect(failureOf({ TENSORD_HOST: host }).message).toContain("want a loopback address");
    });
  }

  for (const host of ["127.0.0.1", "127.0.0.53", "127.255.255.254", "::1", "localhost"]) {
    test(`takes ${host}, which loops back`, () => {
      expect(parseConfig({ TENSORD_HOST: host }).host).toBe(host);
    });
  }

  for (const host of ["0.0.0.0", "::", "10.0.0.1", "fd00::1"]) {
    test(`takes ${host}, where others reach it, together with tokens`, () => {
      expect(parseConfig({ TENSORD_HOST: host, TENSORD_TOKENS_FILE: "/etc/tokens.json" }).host).toBe(host);
    });
  }

  test("minds nothing that clients read, or that hold sets", () => {
    const clients = {
      TENSORD_TOKEN: "secret",
      TENSORD_TOKEN_FILE: "/run/secrets/token",
      TENSORD_SESSION_NAME: "pod-1/app",
      TENSORD_PATH: "/dev/shm/tensord.default.a",
    };
    expect(parseConfig(clients)).toEqual(parseConfig({}));
  });

  for (const host of ["127.0.0.256", "127.999.0.1", "127.0.0.001000"]) {
    test(`refuses ${host}, which is no address`, () => {
      expect(failureOf({ TENSORD_HOST: host }).message).toContain("TENSORD_HOST");
    });
  }

  test("takes hosts that TCP may be called by, each with a port or for all of them", () => {
    const parse = (text: string) => parseConfig({ TENSORD_ALLOWED_HOSTS: text }).allowedHosts;
    expect(parse("GPU.example.com")).toEqual(["gpu.example.com"]);
    expect(parse(" a:1 ,, [FD00::1],[::2]:65535,under_score.svc ")).toEqual([
      "a:1",
      "[fd00::1]",
      "[::2]:65535",
      "under_score.svc",
    ]);
    expect(parse(" , ")).toEqual([]);
  });

  for (const hosts of [
    "*",
    "*.example.com",
    ".example.com",
    "example.com.",
    "http://example.com",
    "example.com/tensord",
    "user@example.com",
    "example.com:",
    "example.com:0",
    "example.com:65536",
    "fd00::1",
    "[fd00::1]:65536",
    "a b",
    "a;b",
    Array(101).fill("a").join(","),
  ]) {
    test(`refuses the hosts ${JSON.stringify(hosts.slice(0, 40))}`, () => {
      expect(failureOf({ TENSORD_ALLOWED_HOSTS: hosts }).message).toMatch(
        /TENSORD_ALLOWED_HOSTS \(--allowed-hosts\) is ".*", want (host or host:port|ports up to|at most 100 hosts)/,
      );
    });
  }

  for (const port of ["-1", "65536", "1e3", "0x50", "80.5", " 80", "80 ", "eighty", "٨٠", "99999999999999999999"]) {
    test(`refuses the port ${JSON.stringify(port)}`, () => {
      expect(failureOf({ TENSORD_PORT: port }).message).toContain("TENSORD_PORT (--port)");
    });
  }

  test("takes a memory limit from its least to its most, to the byte", () => {
    const limitOf = (text: string) => parseConfig({ TENSORD_MEMORY_LIMIT_BYTES: text }).memoryLimitBytes;
    expect(limitOf(String(16 * MiB))).toBe(16 * MiB);
    expect(limitOf(String(limits.regionBytes))).toBe(limits.regionBytes);
    for (const text of [String(16 * MiB - 1), "0", "-1", "9007199254740992", "1.5", "1G", "1e9", "∞"]) {
      expect(failureOf({ TENSORD_MEMORY_LIMIT_BYTES: text }).message).toContain("TENSORD_MEMORY_LIMIT_BYTES");
    }
  });

  for (const instance of ["", "A", "a.b", "a/b", "..", "a_b", "a b", "i".repeat(33), "a\n"]) {
    test(`refuses the instance ${JSON.stringify(instance)}`, () => {
      expect(failureOf({ TENSORD_INSTANCE: instance }).message).toContain("TENSORD_INSTANCE");
    });
  }

  test("refuses an unknown variable of ours, and minds nobody else's", () => {
    for (const variable of ["TENSORD_HOSTS", "TENSORD_", "TENSORD_port", "TENSORD_URLS"]) {
      expect(failureOf({ [variable]: "x" }).message).toContain(`${variable} is no setting`);
    }
    const others = { PATH: "/bin", tensord_port: "x", TENSOR_PORT: "x", XTENSORD_PORT: "x", TENSORD_URL: "unix:///x" };
    expect(parseConfig(others)).toEqual(parseConfig({}));
  });

  test("minds nothing that Kubernetes sets for a Service called tensord, but its TENSORD_PORT, and says why", () => {
    const service = {
      TENSORD_SERVICE_HOST: "10.0.0.11",
      TENSORD_SERVICE_PORT: "7411",
      TENSORD_PORT_7411_TCP: "tcp://10.0.0.11:7411",
      TENSORD_PORT_7411_TCP_ADDR: "10.0.0.11",
    };
    expect(parseConfig(service)).toEqual(parseConfig({}));
    const { message } = failureOf({ ...service, TENSORD_PORT: "tcp://10.0.0.11:7411" });
    expect(message).toContain("enableServiceLinks: false");
  });

  test("shows a long value in part", () => {
    expect(failureOf({ TENSORD_HOST: "h".repeat(100_000) }).message.length).toBeLessThan(1000);
  });
});

describe("settings", () => {
  test("name each variable and each flag once, with units last and a meaning for people", () => {
    const all = Object.values(settings);
    for (const key of ["variable", "flag", "meaning"] as const) {
      expect(new Set(all.map((setting) => setting[key])).size).toBe(all.length);
    }
    for (const { variable, flag, meaning, placeholder } of all) {
      expect(variable).toMatch(/^TENSORD_[A-Z_]+$/);
      expect<string>(flag).toBe(`--${variable.slice("TENSORD_".length).toLowerCase().replaceAll("_", "-")}`);
      expect(meaning).toMatch(/^[A-Z].+\.$/);
      expect(placeholder).toMatch(/^[a-z]+$/);
    }
  });

  test("have defaults that are accepted", () => {
    for (const [name, { fallback }] of Object.entries(settings))
      expect(() => parseConfig({}, { [name]: fallback })).not.toThrow();
  });
});
