/**
 * Manifests as a cluster would take them, as far as that can be told without one: kustomize's result, Kubernetes' own schemas, in
 * which an unknown field is a mistake, and rules of ours for what no schema knows.
 */

import { Ajv } from "ajv";
import { parseConfig } from "../../src/server/config.ts";
import { read, root } from "./repository.ts";

// biome-ignore lint/suspicious/noExplicitAny: what a manifest has is for the schemas to say.
export type Manifest = any;

/** kubectl's kustomize knows what the manifests use from this version of kubectl on. */
const firstMinor = 27;

function findKubectl(): string | undefined {
  const kubectl = Bun.which("kubectl");
  if (kubectl === null) return "needs kubectl";
  const { stdout } = Bun.spawnSync([kubectl, "version", "--client", "--output=json"]);
  const minor = Number.parseInt(/"minor":\s*"(\d+)/.exec(String(stdout))?.[1] ?? "0", 10);
  return minor >= firstMinor ? undefined : `needs kubectl 1.${firstMinor} or newer, for its kustomize`;
}

export const needsKubectl = findKubectl();

/** What `kubectl apply -k` would send. @throws Error with what kustomize says. */
export function build(folder: string): Manifest[] {
  const made = built.get(folder) ?? run(folder);
  built.set(folder, made);
  return structuredClone(made);
}

const built = new Map<string, Manifest[]>();

function run(folder: string): Manifest[] {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["kubectl", "kustomize", folder], { cwd: root });
  if (exitCode !== 0) throw new Error(String(stderr));
  return [Bun.YAML.parse(String(stdout))].flat();
}

const rows = read("tests/unit/fixtures/kubernetes/schemas.ndjson")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line) as { kind?: string; definition?: string; schema: object });
const definitions = Object.fromEntries(rows.map(({ definition = "", schema }) => [definition, schema]));
const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
const validators = new Map(
  rows.flatMap(({ kind, schema }) => (kind === undefined ? [] : [[kind, ajv.compile({ ...schema, definitions })]])),
);

/** What Kubernetes' schema says against a manifest. */
export function judgeSchema(manifest: Manifest): string[] {
  const validate = validators.get(manifest.kind);
  if (validate === undefined) return [`${manifest.kind} has no schema here`];
  validate(manifest);
  return (validate.errors ?? []).map(
    ({ instancePath, message, params }) => `${manifest.kind}${instancePath} ${message} ${JSON.stringify(params)}`,
  );
}

const units: Record<string, number> = { Mi: 2 ** 20, Gi: 2 ** 30 };
const toBytes = (text: unknown) => {
  const [, count, unit = ""] = /^(\d+)(Mi|Gi)$/.exec(String(text)) ?? [];
  return Number(count) * (units[unit] ?? Number.NaN);
};

const podOf = (manifest: Manifest): Manifest =>
  manifest.kind === "Pod" ? manifest.spec : manifest.spec.template?.spec;
const variableOf = (container: Manifest, name: string) =>
  container.env?.find((variable: Manifest) => variable.name === name)?.value;
const mountOf = (container: Manifest, volume: string) =>
  container.volumeMounts?.find((mount: Manifest) => mount.name === volume);

/** What the server of a pod must have that no schema knows. @param isSidecar it is one of a pod's, and not a node's. */
function* judgeServer(server: Manifest, isSidecar: boolean): Generator<string> {
  if (isSidecar && server.restartPolicy !== "Always")
    yield "the sidecar has no restartPolicy: Always, so the pod waits for its end";
  const port = server.ports?.find(({ name }: Manifest) => name === "tensord-health")?.containerPort;
  if (variableOf(server, "TENSORD_HEALTH_ADDRESS") !== `:${port}`)
    yield "the health port is not where the server listens";
  for (const [probe, path] of [
    ["startupProbe", "/readyz"],
    ["readinessProbe", "/readyz"],
    ["livenessProbe", "/livez"],
  ] as const) {
    const get = server[probe]?.httpGet;
    if (get?.path !== path || get.port !== "tensord-health")
      yield `its ${probe} does not ask ${path} of the health port`;
  }
  const { runAsNonRoot, allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities } = server.securityContext ?? {};
  if (
    !runAsNonRoot ||
    allowPrivilegeEscalation !== false ||
    !readOnlyRootFilesystem ||
    capabilities?.drop?.[0] !== "ALL"
  )
    yield "the server is not locked up";
  try {
    parseConfig(Object.fromEntries(server.env.map(({ name, value }: Manifest) => [name, value])));
  } catch (error) {
    yield (error as Error).message;
  }
}

/** The pod's volume: the server alone has all of it, and the others the directory that the server makes in it. */
function* judgeVolume(pod: Manifest, server: Manifest, apps: Manifest[]): Generator<string> {
  const volume = pod.volumes?.find(({ name }: Manifest) => name === "tensord")?.emptyDir;
  const size = toBytes(volume?.sizeLimit);
  if (volume?.medium !== "Memory" || Number.isNaN(size)) yield "the volume is no memory with a bound";
  if (!(toBytes(server.resources?.limits?.memory) >= size + 256 * 2 ** 20))
    yield "the sidecar's memory limit leaves the server no room beside the volume";
  if (!(pod.securityContext?.fsGroup > 0)) yield "without fsGroup no other user reaches what the server makes";
  const whole = mountOf(server, "tensord");
  const directory = variableOf(server, "TENSORD_SHM_DIR");
  if (whole === undefined || whole.subPath !== undefined) yield "the server does not have the whole volume";
  for (const app of apps) {
    const mount = mountOf(app, "tensord");
    if (mount?.subPath === undefined)
      yield `${app.name} has the whole volume, or none of it: it may take the directory away`;
    if (directory !== `${whole?.mountPath}/${mount?.subPath}` || directory !== mount?.mountPath)
      yield `${app.name} has the directory at another path than the server`;
    if (variableOf(app, "TENSORD_SHM_DIR") !== directory) yield `${app.name} looks for the server elsewhere`;
  }
}

/** What no schema knows of the pods in a manifest. */
export function* judgeRules(manifest: Manifest): Generator<string> {
  const pod = podOf(manifest);
  if (pod === undefined) return;
  const { containers, initContainers = [] } = pod;
  const all: Manifest[] = [...initContainers, ...containers];
  for (const name of ["hostIPC", "hostPID", "hostNetwork"]) if (pod[name]) yield `the pod has ${name}`;
  for (const { name, resources } of all)
    if (Number.isNaN(toBytes(resources?.limits?.memory))) yield `${name} has no memory limit`;
  const claims = pod.resourceClaims?.map(({ name }: Manifest) => name) ?? [];
  for (const claim of claims)
    for (const { name, resources } of all)
      if (!resources?.claims?.some((given: Manifest) => given.name === claim)) yield `${name} has no ${claim}`;
  const server = all.find(({ name }) => name === "tensord");
  if (server !== undefined) yield* judgeServer(server, initContainers.includes(server));
  if (server !== undefined && manifest.kind !== "DaemonSet") {
    if (initContainers[0] !== server) yield "the sidecar does not start first";
    yield* judgeVolume(
      pod,
      server,
      all.filter((container) => container !== server),
    );
  }
  for (const container of all)
    if (container !== server && !container.env?.some(({ name }: Manifest) => name === "TENSORD_SESSION_NAME"))
      yield `${container.name} has no name for its sessions`;
}

export const judge = (manifest: Manifest): string[] => [...judgeSchema(manifest), ...judgeRules(manifest)];
