// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

// TestWrongValues: each is refused, with a message that names the place.
func TestWrongValues(t *testing.T) {
	for name, test := range map[string]struct{ values, place string }{
		"kube off (false in YAML)":                 {"kube: off", "/kube"},
		"kube on (true in YAML)":                   {"kube: on", "/kube"},
		"kube no":                                  {"kube: no", "/kube"},
		"kube of another word":                     {"kube: sometimes", "/kube"},
		"kube missing":                             {"kube: null", "kube"},
		"pods as text":                             {`kubePods: "true"`, "/kubePods"},
		"policies as text":                         {`kubePolicies: "true"`, "/kubePolicies"},
		"events as text":                           {`kubeEvents: "true"`, "/kubeEvents"},
		"events without pods":                      {"kubeEvents: true", "kubeEvents"},
		"pods without the API":                     {"kube: 'never'\nkubePods: true", "kubePods"},
		"policies without the API":                 {"kube: 'never'\nkubePolicies: true", "kubePolicies"},
		"drops anonymized as text":                 {`drops: {anonymize: "true"}`, "/drops/anonymize"},
		"api on":                                   {"web: {api: on}", "/web/api"},
		"api off":                                  {"web: {api: off}", "/web/api"},
		"api of another word":                      {"web: {api: localhost}", "/web/api"},
		"unknown key":                              {"hostPid: true", "hostPid"},
		"unknown key in an object":                 {"service: {prot: 10988}", "/service"},
		"mistyped podMonitor":                      {"prometheus: {podmonitor: {enabled: true}}", "podmonitor"},
		"unknown key three deep":                   {"prometheus: {podMonitor: {intervall: 30s}}", "intervall"},
		"podMonitor of another word":               {"prometheus: {podMonitor: {enabled: maybe}}", "/prometheus/podMonitor/enabled"},
		"podMonitor as text":                       {`prometheus: {podMonitor: {enabled: "off"}}`, "/prometheus/podMonitor/enabled"},
		"ServiceMonitor as text":                   {`prometheus: {monitor: {enabled: "true"}}`, "/prometheus/monitor/enabled"},
		"rule as text":                             {`prometheusRule: {enabled: "yes"}`, "/prometheusRule/enabled"},
		"negative port":                            {"service: {port: -1}", "/service/port"},
		"port zero":                                {"service: {port: 0}", "/service/port"},
		"port beyond the last":                     {"service: {port: 65536}", "/service/port"},
		"port as text":                             {`service: {port: "10988"}`, "/service/port"},
		"port with a fraction":                     {"healthPort: 10989.5", "/healthPort"},
		"both ports alike":                         {"healthPort: 10988", "healthPort"},
		"port name too long":                       {"service: {portName: metrics-of-svcscope}", "/service/portName"},
		"lock file as text":                        {`legacy: {lockFile: "true"}`, "/legacy/lockFile"},
		"lock file as a path":                      {"legacy: {lockFile: /run/xtables.lock}", "/legacy/lockFile"},
		"another word for a group of NFLOG":        {"nflog: {group: any}", "/nflog/group"},
		"group of NFLOG beyond the last":           {"nflog: {group: 65536}", "/nflog/group"},
		"another capability":                       {"capabilities: [NET_ADMIN, SYS_ADMIN]", "/capabilities/1"},
		"capability with its prefix":               {"capabilities: [CAP_NET_ADMIN]", "/capabilities/0"},
		"capabilities as text":                     {"capabilities: NET_ADMIN", "/capabilities"},
		"security context":                         {"securityContext: {privileged: true}", "securityContext"},
		"hostPID":                                  {"hostPID: true", "hostPID"},
		"interval without unit":                    {"interval: 15", "/interval"},
		"interval of Prometheus' days":             {"interval: 1d", "/interval"},
		"interval zero":                            {"interval: 0s", "/interval"},
		"interval of entries without unit":         {"conntrack: {interval: 30}", "/conntrack/interval"},
		"jitter negative":                          {"kubeStartJitter: -1s", "/kubeStartJitter"},
		"no Services":                              {"metrics: {maxServices: 0}", "/metrics/maxServices"},
		"most rules negative":                      {"exact: {maxRules: -1}", "/exact/maxRules"},
		"most rules as text":                       {`exact: {maxRules: "2500"}`, "/exact/maxRules"},
		"metrics.endpoints as text":                {`metrics: {endpoints: "false"}`, "/metrics/endpoints"},
		"log level upper case":                     {"log: {level: DEBUG}", "/log/level"},
		"log format of another word":               {"log: {format: text}", "/log/format"},
		"image as text":                            {"image: ghcr.io/svcscope/svcscope:0.1.0", "/image"},
		"image with its tag in the repository":     {"image: {repository: svcscope/svcscope:1}", "/image/repository"},
		"tag as a number":                          {"image: {tag: 1.0}", "/image/tag"},
		"digest without algorithm":                 {"image: {digest: " + strings.Repeat("0a", 32) + "}", "/image/digest"},
		"digest too short":                         {"image: {digest: sha256:0a}", "/image/digest"},
		"pull policy lower case":                   {"image: {pullPolicy: always}", "/image/pullPolicy"},
		"tolerations as an object":                 {"tolerations: {operator: Exists}", "/tolerations"},
		"label as a boolean":                       {"podLabels: {scrape: true}", "/podLabels/scrape"},
		"annotation as a number":                   {"podAnnotations: {port: 10988}", "/podAnnotations/port"},
		"extraArgs as text":                        {"extraArgs: --log.level=debug", "/extraArgs"},
		"extraArgs with a number":                  {"extraArgs: [1]", "/extraArgs/0"},
		"update strategy of a Deployment":          {"updateStrategy: {type: Recreate}", "/updateStrategy/type"},
		"nothing may be missing":                   {"updateStrategy: {rollingUpdate: {maxUnavailable: 0}}", "/updateStrategy/rollingUpdate/maxUnavailable"},
		"surge":                                    {"updateStrategy: {rollingUpdate: {maxSurge: 1}}", "maxSurge"},
		"resources with a mistyped key":            {"resources: {limit: {memory: 1Gi}}", "/resources"},
		"memory limit that is no quantity":         {"resources: {limits: {memory: much}}", "resources.limits.memory"},
		"web configuration with a mistyped key":    {"web: {config: {inline: {tls_config: {}}}}", "tls_config"},
		"two web configurations":                   {"web: {config: {existingSecret: a, inline: {rate_limit: {burst: 1}}}}", "web.config"},
		"certificate without a configuration":      {"web: {config: {tlsSecret: a}}", "web.config.tlsSecret"},
		"Secret with a name that none can have":    {"web: {config: {existingSecret: A_B}}", "/web/config/existingSecret"},
		"scheme of another word":                   {"prometheus: {podMonitor: {scheme: tcp}}", "/prometheus/podMonitor/scheme"},
		"sampleLimit negative":                     {"prometheus: {podMonitor: {sampleLimit: -1}}", "/prometheus/podMonitor/sampleLimit"},
		"alert disabled by text":                   {`prometheusRule: {disabled: {SvcscopeDown: "true"}}`, "/prometheusRule/disabled/SvcscopeDown"},
		"runbook without scheme":                   {"prometheusRule: {runbookUrl: wiki.example}", "/prometheusRule/runbookUrl"},
		"rbac as a boolean":                        {"rbac: true", "/rbac"},
		"dashboards as a boolean":                  {"dashboards: true", "/dashboards"},
		"networkPolicy as text":                    {`networkPolicy: {enabled: "true"}`, "/networkPolicy/enabled"},
		"token as text":                            {`serviceAccount: {automountServiceAccountToken: "false"}`, "/serviceAccount/automountServiceAccountToken"},
		"environment variable without name":        {"env: [{value: x}]", "/env/0"},
		"probe with a handler of its own":          {"livenessProbe: {exec: {command: [x]}}", "/livenessProbe"},
		"pull secret without name":                 {"imagePullSecrets: [{}]", "/imagePullSecrets/0"},
		"pull secrets of a parent chart wrong too": {"global: {imagePullSecrets: secret}", "/global/imagePullSecrets"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, test.place, with(t, test.values))
		})
	}
}

// TestRightValues: what looks like the wrong ones, and is meant.
func TestRightValues(t *testing.T) {
	for _, values := range []string{
		"kube: 'never'",
		"prometheus: {podMonitor: {enabled: off}}",
		"prometheus: {podMonitor: {enabled: on}}",
		"prometheusRule: {enabled: auto}",
		"web: {api: never}",
		"global: {someOtherChart: {key: true}}",
		"image: {tag: '1.0'}",
		"interval: 1m30s",
		"kubeStartJitter: 0s",
		"updateStrategy: {rollingUpdate: {maxUnavailable: 1}}",
		"service: {port: 30000}",
		"tolerations: []",
		"resources: null",
		"capabilities: []",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			render(t, with(t, values))
		})
	}
}

// schema is what is used of a JSON schema.
type schema struct {
	Ref        string            `json:"$ref"`
	Properties map[string]schema `json:"properties"`
	// Additional is false, or a schema.
	Additional any `json:"additionalProperties"`
}

func readSchema(t *testing.T) (schema, []byte) {
	t.Helper()
	b, err := os.ReadFile(chartDir + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s, b
}

// TestSchemaCoversTheValues: the schema has the keys of values.yaml and no
// others, and refuses others in each object whose keys are described.
func TestSchemaCoversTheValues(t *testing.T) {
	s, _ := readSchema(t)
	// The key that a parent chart's condition has among our values.
	delete(s.Properties, "enabled")
	b, err := os.ReadFile(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	if err := yaml.UnmarshalStrict(b, &defaults); err != nil {
		t.Fatal(err)
	}
	values, err := readValues(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	group := map[string]bool{"": true}
	for _, v := range values {
		group[v.path] = v.group
	}
	compareKeys(t, "", s, defaults, group)
}

func compareKeys(t *testing.T, path string, s schema, defaults map[string]any, group map[string]bool) {
	t.Helper()
	if !group[path] {
		return // free, or described as a whole
	}
	// A parent chart shares global with charts that have keys of their own there.
	if path != "global" && s.Additional != false {
		t.Errorf("%q: the schema allows unknown keys", path)
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(defaults)), slices.Sorted(maps.Keys(s.Properties))); d != "" {
		t.Errorf("keys of %q (-values.yaml +schema):\n%s", path, d)
	}
	for key, v := range defaults {
		if below, ok := v.(map[string]any); ok && len(below) > 0 {
			compareKeys(t, strings.TrimPrefix(path+"."+key, "."), s.Properties[key], below, group)
		}
	}
}

// TestSchemaIsValid: it is draft 7, which every helm reads, and the defaults
// pass.
func TestSchemaIsValid(t *testing.T) {
	_, text := readSchema(t)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := doc.(map[string]any)["$schema"]; got != "http://json-schema.org/draft-07/schema#" {
		t.Errorf("$schema is %v", got)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7)
	if err := compiler.AddResource("values.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	values, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(values); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}
