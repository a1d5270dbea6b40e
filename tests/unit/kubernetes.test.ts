/** What `deploy/kubernetes` gives a pod, as kustomize merges it: valid by Kubernetes' schemas, and by our own rules. No cluster has seen it. */

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { testWith } from "../harness/instance-needs.ts";
import { build, judge, type Manifest, needsKubectl } from "../harness/kubernetes.ts";
import { podRows } from "../harness/pod-table.ts";
import { read, root } from "../harness/repository.ts";

const place = "deploy/kubernetes";
const parse = (path: string): Manifest => Bun.YAML.parse(read(`${place}/${path}`));
const overlays = ["cpu", "gpu", "node"];

for (const overlay of overlays) {
  testWith(needsKubectl)(`the overlay ${overlay} is valid, strictly, and keeps our rules`, async () => {
    const manifests = build(`${place}/overlays/${overlay}`);
    expect(manifests.flatMap(judge)).toEqual([]);
    expect(manifests.map(({ kind }) => kind)).toContain("PodMonitor");
    // What the components read themselves goes to no cluster.
    expect(manifests.map(({ kind }) => kind)).not.toContain("Given");
  });
}

// What people have: other kinds, init containers, and mounts and variables of their own.
const foreign = `
apiVersion: v1
kind: Pod
metadata: { name: bare, labels: { tensord: LABEL } }
spec:
  initContainers: [{ name: before, image: a, resources: { limits: { memory: 1Gi } }, env: [{ name: TENSORD_SESSION_NAME, value: own }] }]
  containers: [{ name: one, image: a, resources: { limits: { memory: 1Gi } } }]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: set, labels: { tensord: LABEL } }
spec:
  serviceName: set
  selector: { matchLabels: { app: set } }
  template:
    metadata: { labels: { app: set } }
    spec:
      securityContext: { runAsNonRoot: true }
      volumes: [{ name: data, emptyDir: {} }]
      containers:
        - name: one
          image: a
          resources: { limits: { memory: 1Gi, cpu: 1 } }
          env: [{ name: A, value: b }, { name: TENSORD_SESSION_NAME, value: set/one }]
          volumeMounts: [{ name: data, mountPath: /data }]
---
apiVersion: batch/v1
kind: Job
metadata: { name: job, labels: { tensord: LABEL } }
spec: { template: { spec: { restartPolicy: Never, containers: [{ name: one, image: a, resources: { limits: { memory: 1Gi } } }] } } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: without }
spec:
  selector: { matchLabels: { app: without } }
  template: { metadata: { labels: { app: without } }, spec: { containers: [{ name: one, image: a }] } }
`;

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function buildForeign(components: readonly string[], text: string): Manifest[] {
  mkdirSync(join(root, ".tmp"), { recursive: true });
  const folder = mkdtempSync(join(root, ".tmp/kubernetes-"));
  folders.push(folder);
  writeFileSync(join(folder, "app.yaml"), text);
  const paths = components.map((name) => relative(folder, join(root, place, "components", name)));
  writeFileSync(join(folder, "kustomization.yaml"), JSON.stringify({ resources: ["app.yaml"], components: paths }));
  return build(folder);
}

const named = (manifests: Manifest[], name: string): Manifest =>
  manifests.find(({ metadata }) => metadata.name === name);

testWith(needsKubectl)("each kind that has pods gets the sidecar, beside what it has, if it is labelled", async () => {
  const text = foreign.replaceAll("LABEL", "sidecar").replace(/ {2}initContainers.*\n/, "");
  const manifests = buildForeign(["sidecar", "gpu"], text);
  for (const name of ["bare", "set", "job"]) expect(judge(named(manifests, name))).toEqual([]);
  const [container] = named(manifests, "set").spec.template.spec.containers;
  expect(container.volumeMounts.map((mount: Manifest) => mount.mountPath)).toEqual(["/data", "/dev/shm/t"]);
  expect(container.resources).toEqual({ limits: { memory: "1Gi", cpu: 1 }, claims: [{ name: "gpu" }] });
  expect(JSON.stringify(named(manifests, "without"))).not.toContain("tensord");
});

testWith(needsKubectl)("the sidecar starts before a pod's own init containers, which are given nothing", async () => {
  const bare = named(buildForeign(["sidecar"], foreign.replaceAll("LABEL", "sidecar")), "bare");
  expect(bare.spec.initContainers.map(({ name }: Manifest) => name)).toEqual(["tensord", "before"]);
  expect(bare.spec.initContainers[1]).not.toContainKey("volumeMounts");
});

testWith(needsKubectl)("the directory and the group of the node's server are what its clients are given", async () => {
  const [daemon] = build(`${place}/node`);
  const [server] = daemon.spec.template.spec.containers;
  const clients = buildForeign(["node-client"], foreign.replaceAll("LABEL", "node"));
  const path = server.env.find(({ name }: Manifest) => name === "TENSORD_SHM_DIR").value;
  for (const spec of [named(clients, "bare").spec, named(clients, "set").spec.template.spec]) {
    expect(spec.securityContext.supplementalGroups).toEqual([server.securityContext.runAsGroup]);
    expect(spec.volumes).toContainEqual({ name: "tensord", hostPath: { path, type: "Directory" } });
    expect(spec.containers[0].volumeMounts).toContainEqual({ name: "tensord", mountPath: path });
    expect(spec.containers[0].env).toContainEqual({ name: "TENSORD_SHM_DIR", value: path });
  }
});

/** Mistakes that people make, and what is said of them. */
const mistakes: Record<string, [change: (pod: Manifest) => void, said: string]> = {
  "an unknown field": [(pod) => Object.assign(pod, { hostIpc: true }), "additional properties"],
  "a probe without a port": [
    ({ initContainers: [server] }) => delete server.livenessProbe.httpGet.port,
    "required property 'port'",
  ],
  "a probe that runs a program": [
    ({ initContainers: [server] }) =>
      Object.assign(server, { startupProbe: { exec: { command: ["tensord", "healthcheck"] } } }),
    "its startupProbe does not ask /readyz",
  ],
  "no restartPolicy": [({ initContainers: [server] }) => delete server.restartPolicy, "no restartPolicy: Always"],
  "another health port": [
    ({ initContainers: [server] }) => Object.assign(server.ports[0], { containerPort: 7413 }),
    "the health port",
  ],
  "an app with the whole volume": [
    ({ containers: [app] }) => delete app.volumeMounts[0].subPath,
    "may take the directory away",
  ],
  "an app that mounts it elsewhere": [
    ({ containers: [app] }) => Object.assign(app.volumeMounts[0], { mountPath: "/dev/shm" }),
    "at another path than the server",
  ],
  "an app without a limit": [({ containers: [app] }) => delete app.resources.limits, "loader has no memory limit"],
  "a sidecar's limit of the volume's size": [
    ({ initContainers: [server] }) => Object.assign(server.resources.limits, { memory: "1Gi" }),
    "leaves the server no room",
  ],
  "a volume on a disk": [({ volumes: [volume] }) => delete volume.emptyDir.medium, "no memory with a bound"],
  "no fsGroup": [(pod) => delete pod.securityContext.fsGroup, "without fsGroup"],
  hostIPC: [(pod) => Object.assign(pod, { hostIPC: true }), "the pod has hostIPC"],
  "a server as root": [({ initContainers: [server] }) => delete server.securityContext.runAsNonRoot, "not locked up"],
  "a setting that is none": [
    ({ initContainers: [server] }) => server.env.push({ name: "TENSORD_PROT", value: "1" }),
    "TENSORD_PROT",
  ],
  "a GPU that one container lacks": [({ containers: [app] }) => delete app.resources.claims, "loader has no gpu"],
};

for (const [mistake, [change, said]] of Object.entries(mistakes)) {
  testWith(needsKubectl)(`finds ${mistake}`, async () => {
    const deployment = build(`${place}/overlays/gpu`).find(({ kind }) => kind === "Deployment");
    change(deployment.spec.template.spec);
    expect(judge(deployment).join("\n")).toContain(said);
  });
}

test("workload.yaml has what pod.yaml has", () => {
  for (const component of ["sidecar", "gpu", "node-client"]) {
    const { spec } = parse(`components/${component}/pod.yaml`);
    expect(parse(`components/${component}/workload.yaml`).spec.template.spec).toEqual(spec);
  }
});

test("the network policy leaves every port but the health port open, and that to who observes", () => {
  const { spec } = parse("components/observe/network-policy.yaml");
  const [everybody, observers] = spec.ingress;
  expect(everybody).not.toContainKey("from");
  const open = (port: number) =>
    everybody.ports.some((range: Manifest) => range.protocol === "TCP" && range.port <= port && port <= range.endPort);
  for (const port of [1, 80, 7411, 7413, 65_535]) expect(open(port)).toBeTrue();
  expect(open(7412)).toBeFalse();
  expect(observers.ports).toEqual([{ protocol: "TCP", port: 7412 }]);
  expect(observers.from).toHaveLength(1);
});

test("the table of the played pod has its claims, word by word, and each is a test", () => {
  const table = read("docs/operating.md").split("### One pod, played")[1]?.split("\n### ")[0] ?? "";
  const rows = Object.values(podRows).map(([event, survives]) => `| ${event} | ${survives} |`);
  expect(table.split("\n").filter((line) => line.startsWith("| "))).toEqual([
    "| what happens | what is there afterwards |",
    ...rows,
  ]);
  const tests = read("tests/faults/pod.test.ts");
  for (const row of Object.keys(podRows)) expect(tests).toContain(`"${row}"`);
});

test("every manifest runs the image of this version", () => {
  const { version } = JSON.parse(read("package.json"));
  for (const path of ["components/sidecar/pod.yaml", "node/daemon-set.yaml"])
    expect(read(`${place}/${path}`)).toContain(`image: tensord:${version}\n`);
});
