// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"
)

// notes returns what `helm install` tells its user.
func notes(t *testing.T, args ...string) string {
	t.Helper()
	out, err := needHelm(t).run(append([]string{"install", release, chartDir, "--namespace", "net", "--dry-run=client"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(out, "\nNOTES:\n")
	if !found {
		t.Fatalf("no notes in\n%s", out)
	}
	return text
}

func TestNotes(t *testing.T) {
	t.Parallel()
	text := notes(t)
	for _, want := range []string{
		"kubectl label --overwrite namespace net pod-security.kubernetes.io/enforce=privileged",
		"kubectl -n net rollout status daemonset/svcscope",
		"kubectl -n net exec daemonset/svcscope -- svcscope services",
		"/metrics",
		"NFLOG",
		"prometheusRule.enabled=true",
		"dashboards.enabled=true",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the notes do not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "WARNING") {
		t.Errorf("there is a warning without any value:\n%s", text)
	}
	for _, text := range []string{text, readmeTemplate} {
		for _, want := range []string{"NET_ADMIN", "hostNetwork", "host ports", "probes with a host"} {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
				t.Errorf("of what Pod Security refuses %q is not named:\n%s", want, text)
			}
		}
	}
	// Commands stand alone and are to be copied.
	if n := len(regexp.MustCompile(`(?m)^ +kubectl -n net `).FindAllString(text, -1)); n != 3 {
		t.Errorf("there are %d commands, want three:\n%s", n, text)
	}
}

// TestNotesWarn: values that are allowed and probably not meant.
func TestNotesWarn(t *testing.T) {
	const (
		monitor = "prometheus: {monitor: {enabled: true"
		tls     = "web: {config: {inline: {tls_server_config: {cert_file: tls.crt}}}}\n"
		users   = "web: {config: {inline: {basic_auth_users: {a: b}}}}\n"
		rules   = "prometheusRule: {enabled: true"
	)
	for values, want := range map[string]string{
		"capabilities: []": "NET_ADMIN",
		"capabilities: []\nprometheusRule: {disabled: {SvcscopeCollectorFailing: false}}": "SvcscopeCollectorFailing will report",
		"web: {api: all}":                                                         "web.api",
		"networkPolicy: {enabled: true}":                                          "network plugins",
		"service: {port: 30988}":                                                  "node ports",
		"serviceAccount: {automountServiceAccountToken: false}":                   "automountServiceAccountToken",
		monitor + "}, podMonitor: {enabled: true}}":                               "twice",
		tls + podMonitor + "}}":                                                   "prometheus.podMonitor.tlsConfig is empty",
		tls + monitor + "}}":                                                      "prometheus.monitor.tlsConfig is empty",
		tls + podMonitor + ", scheme: http}}":                                     "prometheus.podMonitor.scheme=http, and the agents have TLS",
		podMonitor + ", scheme: https}}":                                          "prometheus.podMonitor.scheme=https, and the agents have no TLS",
		users + podMonitor + "}}":                                                 "neither prometheus.podMonitor.basicAuth nor",
		users + monitor + "}}":                                                    "neither prometheus.monitor.basicAuth nor",
		"web: {config: {existingSecret: a}}\n" + podMonitor + "}}":                "prometheus.podMonitor.scheme=https and",
		"web: {config: {existingSecret: a}}\n" + monitor + "}}":                   "prometheus.monitor.scheme=https and",
		"web: {config: {existingSecret: a}}\n" + podMonitor + ", scheme: https}}": "prometheus.podMonitor.tlsConfig is empty",
		rules + "}": `job="svcscope": set prometheusRule.job`,
		rules + "}\nprometheus: {scrapeAnnotations: true, podMonitor: {enabled: false}}": `job="svcscope": set prometheusRule.job`,
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			text := notes(t, with(t, values))
			if n := strings.Count(text, "\nWARNING: "); n != 1 || !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
				t.Errorf("%d warnings, want one of %s:\n%s", n, want, text)
			}
		})
	}
}

const podMonitor = "prometheus: {podMonitor: {enabled: true"

// TestNotesDoNotWarn: what looks like the values above, and is complete.
func TestNotesDoNotWarn(t *testing.T) {
	for name, args := range map[string][]string{
		"TLS and password":        {"--values=" + chartDir + "/ci/web-config-inline-values.yaml", "--set=prometheus.podMonitor.enabled=true"},
		"authorization":           {with(t, "web: {config: {inline: {basic_auth_users: {a: b}}}}\n"+podMonitor+", authorization: {type: Basic}}}")},
		"TLS in a Secret":         {"--values=" + chartDir + "/ci/web-config-secret-values.yaml"},
		"no monitor":              {with(t, "web: {config: {inline: {tls_server_config: {cert_file: tls.crt}, basic_auth_users: {a: b}}}}")},
		"rules and monitor":       {with(t, "prometheusRule: {enabled: true}\n"+podMonitor+"}}")},
		"rules and job":           {with(t, "prometheusRule: {enabled: true, job: mine}\nprometheus: {scrapeAnnotations: true}")},
		"annotations and nothing": {"--set=prometheus.scrapeAnnotations=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if text := notes(t, args...); strings.Contains(text, "WARNING") {
				t.Errorf("there is a warning:\n%s", text)
			}
		})
	}
	if text := notes(t, "--set=kube=never"); !strings.Contains(text, "comments") || strings.Contains(text, "WARNING") {
		t.Errorf("nothing of comments, or a warning:\n%s", text)
	}
}
