/**
 * Every setting of the server, once: its environment variable, its flag, its bound, its default and what it means. The
 * command line and the table in `docs/operating.md` are made from it.
 */

import { isIP, isIPv4 } from "node:net";
import { isAbsolute } from "node:path";
import { z } from "@hono/zod-openapi";
import { fileLimits } from "../loaders/limits.ts";
import { isS3Uri, mistakeOfS3Root } from "../loaders/source/s3-uri.ts";
import { TensordError } from "../memory/error.ts";
import { limits, MiB } from "../memory/limits.ts";
import { instancePattern } from "../memory/naming.ts";
import { offeredKinds } from "../memory/storage/storages.ts";

interface Setting {
  readonly variable: `TENSORD_${string}`;
  readonly flag: `--${string}`;
  readonly placeholder: string;
  readonly fallback: string;
  readonly schema: z.ZodType<unknown, string>;
  readonly meaning: string;
}

type Named = Pick<Setting, "variable" | "flag">;

const integer = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,16}$/, `want an integer from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.number().min(min, `want at least ${min}`).max(max, `want at most ${max}`));

const emptyOr = <Schema extends z.ZodType<unknown, string>>(schema: Schema) =>
  z.union([z.literal("").transform(() => undefined), schema]);

const absolutePath = z.string().refine(isAbsolute, "want an absolute path");

const wantLoopback =
  "want a loopback address (127.0.0.1, ::1, localhost), or another IP address together with TENSORD_TOKENS_FILE: without tokens whoever " +
  "reached it could do everything";

/** No name but one: which addresses another stands for is not for us to guess. */
const address = z.string().refine((host) => host === "localhost" || isIP(host) !== 0, wantLoopback);

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."));
}

export interface HealthAddress {
  /** undefined: all interfaces. */
  readonly host: string | undefined;
  readonly port: number;
}

/** `host:port`, `[v6]:port`, or `:port`. */
const healthAddress = z
  .string()
  .regex(/^(\[[0-9a-f:.]+\]|[a-z0-9.-]*):\d{1,5}$/i, "want host:port, [v6]:port, or :port for all interfaces")
  .transform((text): HealthAddress => {
    const [, host = "", port = ""] = /^\[?(.*?)\]?:(\d+)$/.exec(text) ?? [];
    return { host: host === "" ? undefined : host, port: Number(port) };
  })
  .refine(({ port }) => port <= 65_535, "want a port up to 65535");

/** `host` or `host:port`, in lower case. Without wildcards: a name that anybody can register below one would be let in. */
const allowedHost = z
  .string()
  .regex(
    /^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[1-9]\d{0,4})?$/,
    "want host or host:port, comma separated, without a scheme, a path or a wildcard",
  )
  .refine((text) => Number(/:(\d+)$/.exec(text)?.[1] ?? 1) <= 65_535, "want ports up to 65535");

/** Kinds that a region can be made of, in no order: what is preferred is not for each operator to say. */
const storageKindList = z
  .string()
  .transform((text) => text.split(",").map((part) => part.trim()))
  .pipe(z.array(z.enum(offeredKinds, `want some of ${offeredKinds.join(", ")}, comma separated`)));

const wantFewer = `want at most ${fileLimits.modelRoots} of them`;
const wantFolder = "want absolute paths and s3://bucket/prefix, comma separated, none of them /";

/** A folder, or a prefix of a bucket, which is one as well. */
const modelRoot = z.string().superRefine((root, context) => {
  const mistake = isS3Uri(root) ? mistakeOfS3Root(root) : undefined;
  if (mistake !== undefined)
    context.addIssue(mistake.startsWith("want") ? mistake : `${wantFolder}: of ${root} ${mistake}`);
  else if (!isS3Uri(root) && (!isAbsolute(root) || root === "/")) context.addIssue(wantFolder);
});

const pathList = z
  .string()
  .transform((text) => text.split(",").map((part) => part.trim()))
  .transform((parts) => parts.filter((part) => part !== "").map((part) => part.replace(/(?<=.)\/+$/, "")))
  .pipe(z.array(modelRoot).max(fileLimits.modelRoots, wantFewer));

const allowedHosts = z
  .string()
  .transform((text) => text.split(",").map((part) => part.trim().toLowerCase()))
  .transform((parts) => parts.filter((part) => part !== ""))
  .pipe(z.array(allowedHost).max(limits.allowedHosts, `want at most ${limits.allowedHosts} hosts`));

export const settings = {
  host: {
    variable: "TENSORD_HOST",
    flag: "--host",
    placeholder: "address",
    fallback: "127.0.0.1",
    schema: address,
    meaning: "The address that TCP listens on. Any but a loopback one needs TENSORD_TOKENS_FILE.",
  },
  port: {
    variable: "TENSORD_PORT",
    flag: "--port",
    placeholder: "port",
    fallback: "7411",
    schema: emptyOr(integer(0, 65_535)),
    meaning: "The TCP port; 0 takes a free one, empty means no TCP.",
  },
  tokensFile: {
    variable: "TENSORD_TOKENS_FILE",
    flag: "--tokens-file",
    placeholder: "path",
    fallback: "",
    schema: emptyOr(absolutePath),
    meaning:
      "Who may call, and as what: a file that others cannot read, and that is read anew when it changes (docs/security.md). Empty: nobody needs a " +
      "token, and whoever reaches the server may do everything.",
  },
  allowedHosts: {
    variable: "TENSORD_ALLOWED_HOSTS",
    flag: "--allowed-hosts",
    placeholder: "hosts",
    fallback: "",
    schema: allowedHosts,
    meaning:
      "What TCP may be called beside loopback names, as a proxy passes it on in `Host`, and whose pages may call: `host` (on any " +
      "port) or `host:port`, comma separated, no wildcards.",
  },
  socket: {
    variable: "TENSORD_SOCKET",
    flag: "--socket",
    placeholder: "path",
    fallback: "",
    schema: emptyOr(absolutePath),
    meaning: "The Unix socket, at most 107 bytes; empty is `http.sock` in the instance's directory.",
  },
  brokerSocket: {
    variable: "TENSORD_BROKER_SOCKET",
    flag: "--broker-socket",
    placeholder: "path",
    fallback: "",
    schema: emptyOr(absolutePath),
    meaning:
      "The Unix socket that hands out descriptors, at most 107 bytes; empty is beside the other one: `broker.sock` beside `http.sock`, " +
      "else that path with `.broker` behind it.",
  },
  instance: {
    variable: "TENSORD_INSTANCE",
    flag: "--instance",
    placeholder: "name",
    fallback: "default",
    schema: z.string().regex(instancePattern, "want 1 to 32 of a-z 0-9 -"),
    meaning: "The instance: several servers can share one directory under different names.",
  },
  shmDirectory: {
    variable: "TENSORD_SHM_DIR",
    flag: "--shm-dir",
    placeholder: "path",
    fallback: "/dev/shm",
    schema: absolutePath,
    meaning:
      "The tmpfs that holds regions; clients must see the same one. A directory that is missing in a tmpfs is made, sticky.",
  },
  storages: {
    variable: "TENSORD_STORAGES",
    flag: "--storages",
    placeholder: "kinds",
    fallback: "",
    schema: emptyOr(storageKindList),
    meaning:
      "What regions may be made of: some of `shm`, `memfd` and `heap`, comma separated; empty is all. The first of them, in this order, is " +
      "the default: `heap` alone is for workers that share no memory with the server.",
  },
  modelRoots: {
    variable: "TENSORD_MODEL_ROOTS",
    flag: "--model-roots",
    placeholder: "paths",
    fallback: "",
    schema: pathList,
    meaning:
      "Folders whose files workers may have the server load, comma separated, absolute: it reads them as itself; and prefixes of buckets, " +
      "`s3://bucket/prefix`, with the credentials of its environment (docs/models.md). Empty: it loads no files.",
  },
  preload: {
    variable: "TENSORD_PRELOAD",
    flag: "--preload",
    placeholder: "path",
    fallback: "",
    schema: emptyOr(absolutePath),
    meaning:
      "A file of models that are loaded before the server is ready, a list in YAML or JSON (docs/models.md). Its files lie below " +
      "TENSORD_MODEL_ROOTS.",
  },
  memoryLimitBytes: {
    variable: "TENSORD_MEMORY_LIMIT_BYTES",
    flag: "--memory-limit-bytes",
    placeholder: "bytes",
    fallback: "",
    schema: emptyOr(integer(16 * MiB, limits.regionBytes)),
    meaning: "All regions together; empty leaves it to the tmpfs (90 %) and the cgroup. The smallest of them counts.",
  },
  reserveBytes: {
    variable: "TENSORD_RESERVE_BYTES",
    flag: "--reserve-bytes",
    placeholder: "bytes",
    fallback: "",
    schema: emptyOr(integer(0, limits.regionBytes)),
    meaning:
      "Memory that lies ready for regions to come, in huge pages where the kernel has some, beside 6 MiB for small regions; it counts as " +
      "available, and is given back before anything is refused. 0 is none; empty is none under 4 GiB for all regions, else 5 % of that, at most " +
      "1 GiB.",
  },
  holderTtlMs: {
    variable: "TENSORD_HOLDER_TTL_MS",
    flag: "--holder-ttl-ms",
    placeholder: "ms",
    fallback: "600000",
    schema: emptyOr(integer(limits.holderTtlMinMs, limits.holderTtlMaxMs)),
    meaning:
      "How long the memory of `memfd` regions is kept while no server runs, by a process of its own (the fd holder); empty means " +
      "that it ends with the server.",
  },
  holderSocket: {
    variable: "TENSORD_HOLDER_SOCKET",
    flag: "--holder-socket",
    placeholder: "path",
    fallback: "",
    schema: emptyOr(absolutePath),
    meaning:
      "Where a service manager listens for the fd holder, and starts it as a unit of its own; empty means that the server starts it, with a " +
      "socket in the instance's directory.",
  },
  healthAddress: {
    variable: "TENSORD_HEALTH_ADDRESS",
    flag: "--health-address",
    placeholder: "address",
    fallback: "",
    schema: emptyOr(healthAddress),
    meaning: "Where `/livez`, `/readyz` and `/metrics` alone are served too, such as `:7412`; empty is nowhere.",
  },
  logLevel: {
    variable: "TENSORD_LOG_LEVEL",
    flag: "--log-level",
    placeholder: "level",
    fallback: "info",
    schema: z.enum(["debug", "info", "warn", "error", "silent"]),
    meaning: "The least severe log line that is written: debug, info, warn, error or silent.",
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof settings;
export type Config = { readonly [Name in SettingName]: z.output<(typeof settings)[Name]["schema"]> };

type Texts = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings: a flag wins over the environment, which wins over a file of settings, which wins over the default.
 * @throws TensordError `validation-failed` with all mistakes at once.
 */
export function parseConfig(environment: Texts, flags: Texts = {}, file: Texts = {}): Config {
  const mistakes: string[] = [];
  const values = Object.entries(settings).map(([name, setting]) => {
    const text = flags[name] ?? environment[setting.variable] ?? file[name] ?? setting.fallback;
    const result = (setting.schema as z.ZodType<unknown, string>).safeParse(text);
    if (!result.success) mistakes.push(toMistake(setting, text, result.error));
    return [name, result.data];
  });
  const config = Object.fromEntries(values) as Config;
  if (config.host !== undefined && !isLoopback(config.host) && config.tokensFile === undefined)
    mistakes.push(toMistakeOf(settings.host, config.host, wantLoopback));
  const known = new Set<string>(Object.values(settings).map((setting) => setting.variable));
  for (const variable of Object.keys(environment)) {
    if (variable.startsWith("TENSORD_") && !known.has(variable) && !notOurs.test(variable)) {
      mistakes.push(`${variable} is no setting; want one of ${[...known].join(", ")}`);
    }
  }
  if (mistakes.length === 0) return config;
  throw new TensordError("validation-failed", `Cannot start: ${mistakes.join("; ")}`, {
    hint: "docs/operating.md has all settings with their bounds.",
  });
}

/** Read by the command line and by clients, or set by `tensord hold`; and what Kubernetes sets in every pod beside a Service that is called tensord. */
const notOurs = /^TENSORD_(CONFIG$|URL$|TOKEN$|TOKEN_FILE$|SESSION_NAME$|PATH$|SERVICE_|PORT_)/;

function toMistake({ variable, flag }: Setting, text: string, error: z.ZodError): string {
  const messages = error.issues.flatMap((issue) =>
    issue.code === "invalid_union" ? issue.errors.flat().map(({ message }) => message) : [issue.message],
  );
  return toMistakeOf({ variable, flag }, text, messages.find((line) => line.startsWith("want")) ?? messages[0]);
}

function toMistakeOf({ variable, flag }: Named, text: string, message: string | undefined): string {
  const kubernetes = text.startsWith("tcp://")
    ? " (Kubernetes sets it for a Service of that name: enableServiceLinks: false)"
    : "";
  return `${variable} (${flag}) is ${JSON.stringify(text.slice(0, 120))}, ${message}${kubernetes}`;
}
