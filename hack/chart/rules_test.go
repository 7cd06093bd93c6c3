// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

func ruleGroups(t *testing.T, args ...string) []monitoringv1.RuleGroup {
	t.Helper()
	return one[*monitoringv1.PrometheusRule](t, render(t, append(args, operator)...)).Spec.Groups
}

// fileGroups returns the groups in the rule files for a Prometheus without
// operator, whose thresholds are the defaults.
func fileGroups(t *testing.T) []monitoringv1.RuleGroup {
	t.Helper()
	var out []monitoringv1.RuleGroup
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		b, err := os.ReadFile(root + "/dashboards/rules/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var spec monitoringv1.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict(b, &spec); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, spec.Groups...)
	}
	return out
}

// alerts returns the names of the alerts in groups.
func alerts(groups []monitoringv1.RuleGroup) []string {
	var out []string
	for _, g := range groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				out = append(out, r.Alert)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestRulesVerbatim: the PrometheusRule says what the rule files say, braces
// of Prometheus' own templates included.
func TestRulesVerbatim(t *testing.T) {
	t.Parallel()
	want, got := fileGroups(t), ruleGroups(t)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("groups (-files +chart):\n%s", d)
	}
	text, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "{{ $value |") || strings.Contains(string(text), "__") {
		t.Errorf("no template of Prometheus is in the rules, or a threshold is missing:\n%s", text)
	}
}

// TestDisabledAlerts: a disabled alert goes and no other rule; a name that no
// alert has is refused.
func TestDisabledAlerts(t *testing.T) {
	t.Parallel()
	all := alerts(ruleGroups(t))
	if len(all) < 5 {
		t.Fatalf("alerts are %v", all)
	}
	want := slices.DeleteFunc(slices.Clone(all), func(a string) bool { return a == all[1] })
	if d := cmp.Diff(want, alerts(ruleGroups(t, "--set", "prometheusRule.disabled."+all[1]+"=true"))); d != "" {
		t.Errorf("alerts (-want +got):\n%s", d)
	}
	if d := cmp.Diff(all, alerts(ruleGroups(t, "--set", "prometheusRule.disabled."+all[1]+"=false"))); d != "" {
		t.Errorf("alerts (-want +got):\n%s", d)
	}
	refused(t, "prometheusRule.disabled.NoSuchAlert", operator, "--set=prometheusRule.disabled.NoSuchAlert=true")
}

// TestNoCapabilityNoAlert: what SvcscopeCollectorFailing reports is wanted
// where the agent has no capability; unless the values name the alert.
func TestNoCapabilityNoAlert(t *testing.T) {
	t.Parallel()
	const name = "SvcscopeCollectorFailing"
	all := alerts(ruleGroups(t))
	without := slices.DeleteFunc(slices.Clone(all), func(a string) bool { return a == name })
	if len(without) != len(all)-1 {
		t.Fatalf("%s is not in %v", name, all)
	}
	const none = "--set-json=capabilities=[]"
	if d := cmp.Diff(without, alerts(ruleGroups(t, none))); d != "" {
		t.Errorf("alerts (-want +got):\n%s", d)
	}
	if d := cmp.Diff(all, alerts(ruleGroups(t, none, "--set=prometheusRule.disabled."+name+"=false"))); d != "" {
		t.Errorf("alerts (-want +got):\n%s", d)
	}
}

// TestJob: rules and what they say name the job that scrapes, and no other.
func TestJob(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "svcscope"},
		{[]string{"--set=nameOverride=foo"}, "foo"},
		{[]string{"--set=prometheusRule.job=kube pods/1"}, "kube pods/1"},
		{[]string{"--set=nameOverride=foo,prometheusRule.job=bar"}, "bar"},
	} {
		text, err := yaml.Marshal(ruleGroups(t, test.args...))
		if err != nil {
			t.Fatal(err)
		}
		flat := strings.Join(strings.Fields(string(text)), " ")
		if !strings.Contains(flat, `up{job="`+test.want+`"} == 0`) {
			t.Errorf("%v: no rule selects job=%q", test.args, test.want)
		}
		if named := strings.Contains(flat, `job="svcscope"`) || strings.Contains(flat, "job svcscope"); named && test.want != "svcscope" {
			t.Errorf("%v: a rule names job svcscope:\n%s", test.args, text)
		}
	}
	refused(t, "/prometheusRule/job", `--set=prometheusRule.job=a"b`)
}

// TestThresholds: each threshold is a number in an expression, and what the
// value says is there instead of the default.
func TestThresholds(t *testing.T) {
	b, err := os.ReadFile(chartDir + "/files/rules/thresholds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var thresholds map[string]any
	if err := yaml.Unmarshal(b, &thresholds); err != nil {
		t.Fatal(err)
	}
	if len(thresholds) == 0 {
		t.Fatal("no thresholds")
	}
	expressions := func(args ...string) string {
		var out strings.Builder
		for _, g := range ruleGroups(t, args...) {
			for _, r := range g.Rules {
				out.WriteString(r.Expr.String() + "\n")
			}
		}
		return out.String()
	}
	for name := range thresholds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(expressions("--set", "prometheusRule.thresholds."+name+"=0.4321"), "0.4321") {
				t.Error("no expression has the number")
			}
		})
	}
	refused(t, "/prometheusRule/thresholds", operator, "--set=prometheusRule.thresholds.noSuch=1")
}

// TestRuleValues: more groups, and another place for runbooks.
func TestRuleValues(t *testing.T) {
	t.Parallel()
	groups := ruleGroups(t, "--set=prometheusRule.runbookUrl=https://wiki.example/",
		"--set-json", `prometheusRule.customRules=[{"name":"mine","rules":[{"record":"a:b","expr":"vector(1)"}]}]`)
	if last := groups[len(groups)-1]; last.Name != "mine" || len(last.Rules) != 1 {
		t.Errorf("the last group is %+v", last)
	}
	for _, g := range groups {
		for _, r := range g.Rules {
			if url := r.Annotations["runbook_url"]; r.Alert != "" && !strings.HasPrefix(url, "https://wiki.example/") {
				t.Errorf("%s has its runbook at %s", r.Alert, url)
			}
		}
	}
}

// refused fails unless helm refuses the arguments with a message that names
// the place.
func refused(t *testing.T, place string, args ...string) {
	t.Helper()
	_, err := needHelm(t).template(release, args...)
	if err == nil {
		t.Errorf("%v is accepted", args)
	} else if !strings.Contains(err.Error(), place) {
		t.Errorf("the message does not name %s: %v", place, err)
	}
}
