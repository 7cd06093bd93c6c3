// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// checkNames fails on an object whose name or namespace is not the release's.
func checkNames(t *testing.T, objects map[string]object) {
	t.Helper()
	for name, o := range objects {
		clusterScoped := strings.HasPrefix(name, "ClusterRole")
		if clusterScoped != (o.GetNamespace() == "") {
			t.Errorf("%s is in namespace %q", name, o.GetNamespace())
		}
	}
}

// checkLabels holds labels against Kubernetes' recommendation, and selectors
// against what must never change: a DaemonSet's cannot be updated.
func checkLabels(t *testing.T, objects map[string]object) {
	t.Helper()
	for name, o := range objects {
		for _, label := range []string{"name", "instance", "version", "managed-by"} {
			if o.GetLabels()["app.kubernetes.io/"+label] == "" {
				t.Errorf("%s has no label app.kubernetes.io/%s", name, label)
			}
		}
		if o.GetLabels()["helm.sh/chart"] == "" {
			t.Errorf("%s has no label helm.sh/chart", name)
		}
	}
	ds := one[*appsv1.DaemonSet](t, objects)
	want := map[string]string{
		"app.kubernetes.io/name":     ds.Labels["app.kubernetes.io/name"],
		"app.kubernetes.io/instance": "svcscope",
	}
	selectors := map[string]*metav1.LabelSelector{"DaemonSet": ds.Spec.Selector}
	for _, m := range ofKind[*monitoringv1.PodMonitor](objects) {
		selectors[id(m)] = &m.Spec.Selector
	}
	for _, s := range ofKind[*corev1.Service](objects) {
		selectors[id(s)] = &metav1.LabelSelector{MatchLabels: s.Spec.Selector}
	}
	for _, p := range ofKind[*networkingv1.NetworkPolicy](objects) {
		selectors[id(p)] = &p.Spec.PodSelector
	}
	for name, s := range selectors {
		if d := cmp.Diff(&metav1.LabelSelector{MatchLabels: want}, s); d != "" {
			t.Errorf("selector of %s (-want +got):\n%s", name, d)
		}
	}
	if !labels.SelectorFromSet(want).Matches(labels.Set(ds.Spec.Template.Labels)) {
		t.Errorf("the pods' labels are %v, the selector is %v", ds.Spec.Template.Labels, want)
	}
}

// checkVolumes fails on a mount of the node that is not one file, read-only.
func checkVolumes(t *testing.T, objects map[string]object) {
	t.Helper()
	host := map[string]bool{}
	for _, v := range podSpec(t, objects).Volumes {
		if v.HostPath == nil {
			continue
		}
		host[v.Name] = true
		if v.HostPath.Type == nil || *v.HostPath.Type != corev1.HostPathFile {
			t.Errorf("hostPath %s is not of type File: where it is missing, a kubelet makes a folder of it", v.HostPath.Path)
		}
	}
	for _, m := range container(t, objects).VolumeMounts {
		if host[m.Name] && !m.ReadOnly {
			t.Errorf("%s of the node is mounted writable", m.MountPath)
		}
	}
}

// checkSecurity fails on any right beyond those in docs/privileges.md.
func checkSecurity(t *testing.T, objects map[string]object) {
	t.Helper()
	yes, no, root := true, false, int64(0)
	want := corev1.SecurityContext{
		RunAsUser:                &root,
		RunAsGroup:               &root,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities: &corev1.Capabilities{
			Drop: []corev1.Capability{"ALL"},
			Add:  []corev1.Capability{"NET_ADMIN"},
		},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	spec := podSpec(t, objects)
	var got corev1.SecurityContext
	// What the pod says is true of the container unless that says otherwise.
	if p := spec.SecurityContext; p != nil {
		got = corev1.SecurityContext{RunAsUser: p.RunAsUser, RunAsGroup: p.RunAsGroup, SeccompProfile: p.SeccompProfile}
		rest := *p
		rest.RunAsUser, rest.RunAsGroup, rest.SeccompProfile = nil, nil, nil
		if d := cmp.Diff(corev1.PodSecurityContext{}, rest); d != "" {
			t.Errorf("the pod's security context has more (-want +got):\n%s", d)
		}
	}
	if c := container(t, objects).SecurityContext; c != nil {
		user, group, seccomp := got.RunAsUser, got.RunAsGroup, got.SeccompProfile
		got = *c
		got.RunAsUser, got.RunAsGroup = orElse(got.RunAsUser, user), orElse(got.RunAsGroup, group)
		got.SeccompProfile = orElse(got.SeccompProfile, seccomp)
	}
	if got.RunAsGroup == nil {
		want.RunAsGroup = nil // the image's, which is 0
	}
	if got.Capabilities != nil && len(got.Capabilities.Add) == 0 {
		want.Capabilities.Add = nil // less is allowed
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("security context (-want +got):\n%s", d)
	}
	if !spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.ShareProcessNamespace != nil {
		t.Errorf("hostNetwork is %v, hostPID %v, hostIPC %v; want the network alone", spec.HostNetwork, spec.HostPID, spec.HostIPC)
	}
}

func orElse[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// checkFlags fails on an argument that `svcscope agent` does not have, or on
// a value that it does not take.
func checkFlags(t *testing.T, c corev1.Container) {
	t.Helper()
	known := agentFlags(t)
	if len(c.Args) == 0 || c.Args[0] != "agent" {
		t.Fatalf("args are %q, want agent first", c.Args)
	}
	for _, a := range c.Args[1:] {
		name, v, _ := strings.Cut(a, "=")
		kind, ok := known[name]
		if !ok {
			t.Errorf("svcscope agent has no flag %s", name)
			continue
		}
		if choices := strings.Split(kind, "|"); len(choices) > 1 && !slices.Contains(choices, v) {
			t.Errorf("%s: the flag takes %s", a, kind)
		}
	}
}

var flagRow = regexp.MustCompile("(?m)^\\| `(--[a-z.-]+)(?: ([^`]*))?` \\|")

// agentFlags returns the agent's flags, with what they take, from docs/cli.md.
func agentFlags(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(root + "/docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "\n## svcscope agent\n")
	section, _, _ = strings.Cut(section, "\n## ")
	out := map[string]string{}
	for _, m := range flagRow.FindAllStringSubmatch(section, -1) {
		out[m[1]] = strings.ReplaceAll(m[2], `\|`, "|")
	}
	if !found || len(out) < 5 {
		t.Fatalf("docs/cli.md tells %d flags of the agent", len(out))
	}
	return out
}
