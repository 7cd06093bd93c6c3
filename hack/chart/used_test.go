// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestEveryValueIsUsed changes one value after the other and sees that what
// helm says changes: objects or notes.
func TestEveryValueIsUsed(t *testing.T) {
	values, err := readValues(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	all := everything(t)
	whole := map[string]bool{} // objects that are described as a whole
	for _, v := range values {
		whole[v.path] = whole[v.parent] || !v.leaf && !v.group
		if whole[v.parent] || v.group {
			continue
		}
		t.Run(v.path, func(t *testing.T) {
			t.Parallel()
			from, context := all, contexts()[v.path]
			if context != "" {
				from = everything(t, "--set-json="+context)
			}
			change := "--set-json=" + v.path + "=" + other(t, v)
			args := []string{change}
			if context != "" {
				args = []string{"--set-json=" + context, change}
			}
			if from == everything(t, args...) {
				t.Errorf("nothing changes with %s", change)
			}
		})
	}
}

// switchedOn returns values with which everything is made.
func switchedOn() map[string]string {
	return map[string]string{
		"dashboards.enabled":            "true",
		"networkPolicy.enabled":         "true",
		"prometheus.monitor.enabled":    "true",
		"prometheus.podMonitor.enabled": "true",
		"prometheusRule.enabled":        "true",
		"web.config.inline":             `{"tls_server_config":{"cert_file":"tls.crt"}}`,
	}
}

// contexts returns values under which others have an effect, by the path of
// the latter.
func contexts() map[string]string {
	return map[string]string{
		"service.enabled":           "prometheus.monitor.enabled=false",
		"web.config.existingSecret": "web.config.inline={}",
		"web.config.key":            `web.config={"existingSecret":"a","inline":{}}`,
		"kubeEvents":                "kubePods=true",
	}
}

// everything returns objects and notes with all that can be switched on.
func everything(t *testing.T, args ...string) string {
	t.Helper()
	all := []string{"install", release, chartDir, "--dry-run=client"}
	for path, v := range switchedOn() {
		all = append(all, "--set-json="+path+"="+v)
	}
	out, err := needHelm(t).run(append(all, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ = strings.Cut(out, "\nMANIFEST:\n") // before it, the time
	return out
}

// other returns a value, as JSON, that is not the one in everything and that
// the schema allows.
func other(t *testing.T, v value) string {
	t.Helper()
	if _, ok := switchedOn()[v.path]; ok {
		return strings.ReplaceAll(v.def, `"auto"`, "false")
	}
	// By the whole path, or by the key alone.
	for _, name := range []string{v.path, v.path[strings.LastIndex(v.path, ".")+1:]} {
		if o, ok := others()[name]; ok {
			return o
		}
	}
	var def any
	if err := json.Unmarshal([]byte(v.def), &def); err != nil {
		t.Fatal(err)
	}
	switch def := def.(type) {
	case bool:
		return fmt.Sprint(!def)
	case float64:
		return fmt.Sprint(def + 1)
	case map[string]any:
		return `{"other":"other"}`
	case []any:
		return `["other"]`
	}
	return `"other"`
}

// others returns values for those keys that do not take just any of their type.
func others() map[string]string {
	return map[string]string{
		"image.digest":            `"sha256:` + strings.Repeat("0a", 32) + `"`,
		"image.pullPolicy":        `"Always"`,
		"kube":                    `"always"`,
		"kubeStartJitter":         `"1s"`,
		"interval":                `"1s"`,
		"conntrack.interval":      `"1s"`,
		"nflog.group":             `"none"`,
		"web.api":                 `"all"`,
		"log.level":               `"debug"`,
		"log.format":              `"json"`,
		"scrapeTimeout":           `"1s"`,
		"service.port":            "10990",
		"scheme":                  `"http"`,
		"serviceDiscoveryRole":    `"Endpoints"`,
		"relabelings":             `[{"action":"labelmap"}]`,
		"metricRelabelings":       `[{"action":"labelmap"}]`,
		"prometheusRule.disabled": `{"SvcscopeDown":true}`,
		"customRules":             `[{"name":"other","rules":[]}]`,
		"runbookUrl":              `"https://other.example/"`,
		"conntrackWarning":        "0.12",
		"conntrackCritical":       "0.12",
		"sourcePorts":             "0.12",
		"rulesDeviation":          "0.12",
		"ingress":                 `[{}]`,
		"capabilities":            `[]`,
		"resources":               `null`,
		"env":                     `[{"name":"OTHER","value":"x"}]`,
		"extraVolumes":            `[{"name":"other","emptyDir":{}}]`,
		"extraVolumeMounts":       `[{"name":"other","mountPath":"/other"}]`,
		"extraManifests":          `[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"other"}}]`,
		"updateStrategy.type":     `"OnDelete"`,
		"maxUnavailable":          `1`,
		"tolerations":             `[]`,
		"livenessProbe":           `{"periodSeconds":99}`,
		"readinessProbe":          `{"periodSeconds":99}`,
	}
}
