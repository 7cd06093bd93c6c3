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
	// Commands stand alone and are to be copied.
	if n := len(regexp.MustCompile(`(?m)^ +kubectl -n net `).FindAllString(text, -1)); n != 3 {
		t.Errorf("there are %d commands, want three:\n%s", n, text)
	}
}

// TestNotesWarn: values that are allowed and probably not meant.
func TestNotesWarn(t *testing.T) {
	for values, want := range map[string]string{
		"capabilities: []":               "NET_ADMIN",
		"web: {api: all}":                "web.api",
		"kube: never":                    "comments",
		"networkPolicy: {enabled: true}": "network plugins",
		"service: {port: 30988}":         "node ports",
		"serviceAccount: {automountServiceAccountToken: false}":               "automountServiceAccountToken",
		"prometheus: {monitor: {enabled: true}, podMonitor: {enabled: true}}": "twice",
	} {
		t.Run(values, func(t *testing.T) {
			text := notes(t, with(t, values))
			if kube := strings.HasPrefix(values, "kube"); !kube && !strings.Contains(text, "WARNING") || !strings.Contains(text, want) {
				t.Errorf("no warning of %s:\n%s", want, text)
			}
		})
	}
}
