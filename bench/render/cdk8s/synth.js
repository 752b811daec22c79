// Writes the objects of OBJECTS.json: services with constructs of cdk8s-plus, other components as plain objects.
// Usage: node synth.js OBJECTS.json OUT
const { readFileSync } = require('fs');
const { ApiObject, App, Chart, Size } = require('cdk8s');
const kplus = require('cdk8s-plus-34');

const [input, outdir] = process.argv.slice(2);
const objects = JSON.parse(readFileSync(input));
const app = new App({ outdir });
const of = (chart, object) => new ApiObject(chart, `${object.kind}-${object.metadata.name}`, object);
const tcp = ports => ports.map(({ port }) => kplus.NetworkPolicyPort.tcp(port));

function deployment(chart, manifest) {
  const { name, namespace } = manifest.metadata;
  const container = manifest.spec.template.spec.containers[0];
  const [http, grpc] = container.ports.map(port => port.containerPort);
  const made = new kplus.Deployment(chart, 'deployment', {
    metadata: { name, namespace },
    replicas: manifest.spec.replicas,
    serviceAccount: kplus.ServiceAccount.fromServiceAccountName(chart, 'account', name),
    securityContext: { user: 10001, group: 10001, ensureNonRoot: true },
    terminationGracePeriod: require('cdk8s').Duration.seconds(manifest.spec.template.spec.terminationGracePeriodSeconds),
    containers: [{
      name,
      image: container.image,
      ports: [{ name: 'http', number: http }, { name: 'grpc', number: grpc }],
      resources: {
        cpu: { request: kplus.Cpu.units(1), limit: kplus.Cpu.units(2) },
        memory: { request: Size.gibibytes(2), limit: Size.gibibytes(4) },
      },
      envVariables: { VOICE_POLICY_PATH: kplus.EnvValue.fromValue('/etc/voice/policy') },
      startup: kplus.Probe.fromHttpGet('/health', { port: http }),
      liveness: kplus.Probe.fromHttpGet('/health', { port: http }),
      readiness: kplus.Probe.fromHttpGet('/ready', { port: http }),
    }],
  });
  for (const volume of ['policy', 'settings']) {
    const map = kplus.ConfigMap.fromConfigMapName(chart, `${volume}-reference`, `${name}-${volume}`);
    made.containers[0].mount(`/etc/voice/${volume}`, kplus.Volume.fromConfigMap(chart, `${volume}-volume`, map));
  }
  return made;
}

function peers(chart, rules, side) {
  return (rules || []).map((rule, index) => ({
    peer: kplus.Pods.select(chart, `${side}-${index}`, { labels: rule[side][0].podSelector.matchLabels }),
    ports: tcp(rule.ports),
  }));
}

const makers = {
  ServiceAccount: (chart, { metadata }) => new kplus.ServiceAccount(chart, 'service-account', { metadata }),
  ConfigMap: (chart, { metadata, data }) => new kplus.ConfigMap(chart, `map-${metadata.name}`, { metadata, data }),
  Service: (chart, { metadata, spec }, pods) => new kplus.Service(chart, `service-${metadata.name}`, {
    metadata, selector: pods, ports: spec.ports.map(({ name, port }) => ({ name, port })),
  }),
  NetworkPolicy: (chart, { metadata, spec }, pods) => new kplus.NetworkPolicy(chart, 'network-policy', {
    metadata,
    selector: pods,
    ingress: { default: kplus.NetworkPolicyTrafficDefault.DENY, rules: peers(chart, spec.ingress, 'from') },
    egress: { default: kplus.NetworkPolicyTrafficDefault.DENY, rules: peers(chart, spec.egress, 'to') },
  }),
  HorizontalPodAutoscaler: (chart, { metadata, spec }, pods) => new kplus.HorizontalPodAutoscaler(chart, 'autoscaler', {
    metadata, target: pods, minReplicas: spec.minReplicas, maxReplicas: spec.maxReplicas,
    metrics: [kplus.Metric.resourceCpu(kplus.MetricTarget.averageUtilization(70))],
  }),
};

const components = Map.groupBy ? Map.groupBy(objects, object => object.component) : new Map();
if (!components.size) for (const object of objects) components.set(object.component, [...(components.get(object.component) || []), object]);
for (const [name, members] of components) {
  const chart = new Chart(app, name, { disableResourceNameHashes: true });
  const manifest = members.find(({ kind }) => kind === 'Deployment');
  const pods = manifest && deployment(chart, manifest);
  for (const { component, ...object } of members) {
    if (object.kind === 'Deployment') continue;
    if (pods && makers[object.kind]) makers[object.kind](chart, object, pods);
    else of(chart, object);
  }
}
app.synth();
