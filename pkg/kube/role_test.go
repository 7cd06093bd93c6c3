// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestClusterRole holds deploy/clusterrole.yaml against what is asked of the
// API: every resource is in it, and no other.
func TestClusterRole(t *testing.T) {
	b, err := os.ReadFile("../../deploy/clusterrole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(b, &role); err != nil {
		t.Fatal(err)
	}
	verbs := []string{"get", "list", "watch"}
	want := rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole"},
		ObjectMeta: metav1.ObjectMeta{Name: "svcscope"},
		Rules: []rbacv1.PolicyRule{
			{Verbs: verbs, APIGroups: []string{""}, Resources: []string{"services", "nodes"}},
			{Verbs: verbs, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
		},
	}
	if d := cmp.Diff(want, role); d != "" {
		t.Errorf("role (-want +got):\n%s", d)
	}
	more := optionalRules(t, string(b))
	want.Rules = []rbacv1.PolicyRule{
		{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"pods"}},
		{Verbs: []string{"list", "watch"}, APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}},
		{Verbs: []string{"create", "patch"}, APIGroups: []string{""}, Resources: []string{"events"}},
	}
	if d := cmp.Diff(want.Rules, more); d != "" {
		t.Fatalf("rules for flags (-want +got):\n%s", d)
	}
	checkAsked(t, nil, role.Rules)
	checkAsked(t, withPods, append(role.Rules, more[:2]...))
}

// optionalRules are those that comments of the role have for flags.
func optionalRules(t *testing.T, role string) (rules []rbacv1.PolicyRule) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^# +--kube\.[a-z]+ +(- \{.*\})$`).FindAllStringSubmatch(role, -1) {
		var one []rbacv1.PolicyRule
		if err := yaml.UnmarshalStrict([]byte(m[1]), &one); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, one...)
	}
	return rules
}

// checkAsked holds rules against what is asked of the API: every resource is in them, and
// no other.
func checkAsked(t *testing.T, change func(*Config), rules []rbacv1.PolicyRule) {
	t.Helper()
	f := newFakeAPI(t)
	f.noStreaming = true
	fill(f)
	w := start(t, f, change)
	until(t, w, "first list", says(w, webOnly))
	var asked, granted []string
	for _, request := range f.asked() {
		_, resource, _ := strings.Cut(request, " ")
		asked = append(asked, resource)
	}
	for _, r := range rules {
		granted = append(granted, r.Resources...)
	}
	slices.Sort(asked)
	slices.Sort(granted)
	if d := cmp.Diff(slices.Compact(asked), granted); d != "" {
		t.Errorf("resources (-asked +granted):\n%s", d)
	}
}
