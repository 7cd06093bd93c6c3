// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestDefaults says what is there without any value, and so that whatever else
// the chart can make is made only where it is asked for.
func TestDefaults(t *testing.T) {
	t.Parallel()
	want := []string{
		"ClusterRole svcscope", "ClusterRoleBinding svcscope", "DaemonSet svcscope/svcscope", "ServiceAccount svcscope/svcscope",
	}
	if d := cmp.Diff(want, sorted(render(t))); d != "" {
		t.Errorf("objects (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]corev1.Capability{"NET_ADMIN"}, container(t, render(t)).SecurityContext.Capabilities.Add); d != "" {
		t.Errorf("capabilities (-want +got):\n%s", d)
	}
}

// TestRole holds the role against the one for people with a kubeconfig, which
// pkg/kube holds against what the agent asks for.
func TestRole(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(deployDir + "/clusterrole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := one[*rbacv1.ClusterRole](t, mustDecode(t, string(b)))
	objects := render(t)
	role := one[*rbacv1.ClusterRole](t, objects)
	if d := cmp.Diff(want.Rules, role.Rules); d != "" {
		t.Errorf("rules (-deploy/clusterrole.yaml +chart):\n%s", d)
	}
	if d := cmp.Diff([]string{"get", "list", "watch"}, role.Rules[0].Verbs); d != "" {
		t.Errorf("verbs (-want +got):\n%s", d)
	}
	none[*rbacv1.Role](t, objects)
	none[*rbacv1.RoleBinding](t, objects)
	binding := one[*rbacv1.ClusterRoleBinding](t, objects)
	if d := cmp.Diff(rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: role.Name}, binding.RoleRef); d != "" {
		t.Errorf("role of the binding (-want +got):\n%s", d)
	}
	account := one[*corev1.ServiceAccount](t, objects)
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}}
	if d := cmp.Diff(subjects, binding.Subjects); d != "" {
		t.Errorf("subjects of the binding (-want +got):\n%s", d)
	}
	spec := podSpec(t, objects)
	if spec.ServiceAccountName != account.Name || spec.AutomountServiceAccountToken == nil || !*spec.AutomountServiceAccountToken {
		t.Errorf("the pod has account %q, token %v", spec.ServiceAccountName, spec.AutomountServiceAccountToken)
	}
}

func TestNoRoleWhereNotToBeMade(t *testing.T) {
	t.Parallel()
	objects := render(t, "--set", "rbac.create=false,serviceAccount.create=false,serviceAccount.name=mine")
	none[*rbacv1.ClusterRole](t, objects)
	none[*rbacv1.ClusterRoleBinding](t, objects)
	none[*corev1.ServiceAccount](t, objects)
	if name := podSpec(t, objects).ServiceAccountName; name != "mine" {
		t.Errorf("the pod has account %q, want mine", name)
	}
}

// TestRoleOfWhatIsAskedFor: each value brings its flag and one rule, and no other does.
func TestRoleOfWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	pods := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}}
	policies := rbacv1.PolicyRule{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: []string{"list", "watch"}}
	events := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}}
	base := one[*rbacv1.ClusterRole](t, render(t)).Rules
	for set, want := range map[string]struct {
		rules []rbacv1.PolicyRule
		flags []string
	}{
		"kubePods=false,kubePolicies=false,kubeEvents=false": {[]rbacv1.PolicyRule{}, nil},
		"kubePods=true":                 {[]rbacv1.PolicyRule{pods}, []string{"--kube.pods"}},
		"kubePolicies=true":             {[]rbacv1.PolicyRule{policies}, []string{"--kube.policies"}},
		"kubePods=true,kubeEvents=true": {[]rbacv1.PolicyRule{pods, events}, []string{"--kube.pods", "--kube.events"}},
		"kubePods=true,kubePolicies=true,kubeEvents=true": {
			[]rbacv1.PolicyRule{pods, policies, events}, []string{"--kube.pods", "--kube.policies", "--kube.events"},
		},
	} {
		objects := render(t, "--set", set)
		if d := cmp.Diff(want.rules, one[*rbacv1.ClusterRole](t, objects).Rules[len(base):]); d != "" {
			t.Errorf("%s: rules (-want +got):\n%s", set, d)
		}
		var flags []string
		for _, a := range container(t, objects).Args {
			if a == "--kube.pods" || a == "--kube.policies" || a == "--kube.events" {
				flags = append(flags, a)
			}
		}
		if d := cmp.Diff(want.flags, flags); d != "" {
			t.Errorf("%s: flags (-want +got):\n%s", set, d)
		}
		none[*rbacv1.Role](t, objects)
	}
	none[*rbacv1.ClusterRole](t, render(t, "--set", "rbac.create=false,kubePods=true,kubePolicies=true,kubeEvents=true"))
}

// TestNoAPI: without the API nothing is granted, and no token is in the pod.
func TestNoAPI(t *testing.T) {
	t.Parallel()
	objects := render(t, "--set", "kube=never")
	none[*rbacv1.ClusterRole](t, objects)
	none[*rbacv1.ClusterRoleBinding](t, objects)
	none[*rbacv1.Role](t, objects)
	none[*rbacv1.RoleBinding](t, objects)
	spec := podSpec(t, objects)
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("the pod gets a token")
	}
	if len(spec.Volumes) != 0 {
		t.Errorf("volumes are %v, want none", spec.Volumes)
	}
	for _, a := range ofKind[*corev1.ServiceAccount](objects) {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			t.Errorf("%s gives its token to pods that do not ask", id(a))
		}
	}
	if d := cmp.Diff([]string{"never"}, flag(container(t, objects), "kube")); d != "" {
		t.Errorf("--kube (-want +got):\n%s", d)
	}
}

func TestListens(t *testing.T) {
	t.Parallel()
	c := container(t, render(t, "--set", "service.port=20988,healthPort=20989"))
	if d := cmp.Diff([]string{"[$(HOST_IP)]:20988", "127.0.0.1:20988"}, flag(c, "web.listen-address")); d != "" {
		t.Errorf("--web.listen-address (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"127.0.0.1:20989"}, flag(c, "web.health-address")); d != "" {
		t.Errorf("--web.health-address (-want +got):\n%s", d)
	}
	env := map[string]string{}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			env[e.Name] = e.ValueFrom.FieldRef.FieldPath
		}
	}
	if d := cmp.Diff(map[string]string{"HOST_IP": "status.hostIP", "NODE_NAME": "spec.nodeName"}, env); d != "" {
		t.Errorf("environment from fields (-want +got):\n%s", d)
	}
	want := []corev1.ContainerPort{
		{Name: "metrics", ContainerPort: 20988, HostPort: 20988, Protocol: "TCP"},
		{Name: "health", ContainerPort: 20989, HostPort: 20989, HostIP: "127.0.0.1", Protocol: "TCP"},
	}
	if d := cmp.Diff(want, c.Ports); d != "" {
		t.Errorf("ports (-want +got):\n%s", d)
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		want := &corev1.HTTPGetAction{Host: "127.0.0.1", Path: path, Port: intstr.FromString("health")}
		if probe == nil {
			t.Errorf("no probe of %s", path)
		} else if d := cmp.Diff(want, probe.HTTPGet); d != "" {
			t.Errorf("probe (-want +got):\n%s", d)
		}
	}
}

func TestLockFile(t *testing.T) {
	t.Parallel()
	if v := podSpec(t, render(t)).Volumes; len(v) != 0 {
		t.Errorf("volumes without a value are %v, want none", v)
	}
	objects := render(t, "--set", "legacy.lockFile=true")
	file := corev1.HostPathFile
	want := corev1.HostPathVolumeSource{Path: "/run/xtables.lock", Type: &file}
	volumes, mounts := podSpec(t, objects).Volumes, container(t, objects).VolumeMounts
	if len(volumes) != 1 || len(mounts) != 1 {
		t.Fatalf("%d volumes and %d mounts, want 1", len(volumes), len(mounts))
	}
	if d := cmp.Diff(&want, volumes[0].HostPath); d != "" {
		t.Errorf("volume (-want +got):\n%s", d)
	}
	mount := corev1.VolumeMount{Name: volumes[0].Name, MountPath: "/run/xtables.lock", ReadOnly: true}
	if d := cmp.Diff(mount, mounts[0]); d != "" {
		t.Errorf("mount (-want +got):\n%s", d)
	}
}

// TestMaxRules: 0 is a number like others, not "no value".
func TestMaxRules(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{"": "2500", "exact.maxRules=0": "0", "exact.maxRules=1234567": "1234567"} {
		if d := cmp.Diff([]string{want}, flag(container(t, render(t, "--set", set)), "exact.max-rules")); d != "" {
			t.Errorf("%q: --exact.max-rules (-want +got):\n%s", set, d)
		}
	}
}

// TestNFLOGGroup: a number is written as one, whatever its type.
func TestNFLOGGroup(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{"nflog.group=auto": "auto", "nflog.group=none": "none", "nflog.group=100": "100", "nflog.group=2\\,100": "2,100"} {
		if d := cmp.Diff([]string{want}, flag(container(t, render(t, "--set", set)), "nflog.group")); d != "" {
			t.Errorf("%q: --nflog.group (-want +got):\n%s", set, d)
		}
	}
}

// TestNoCapability: NET_ADMIN can be left out; what else is asked of the
// security context stays.
func TestNoCapability(t *testing.T) {
	t.Parallel()
	objects := render(t, "--set-json", "capabilities=[]")
	if add := container(t, objects).SecurityContext.Capabilities.Add; len(add) != 0 {
		t.Errorf("capabilities are %v, want none", add)
	}
	checkSecurity(t, objects)
}

func TestNetworkPolicy(t *testing.T) {
	t.Parallel()
	none[*networkingv1.NetworkPolicy](t, render(t, operator))
	p := one[*networkingv1.NetworkPolicy](t, render(t, "--set", "networkPolicy.enabled=true"))
	port, tcp := intstr.FromInt32(10988), corev1.ProtocolTCP
	want := []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}}}}
	if d := cmp.Diff(want, p.Spec.Ingress); d != "" {
		t.Errorf("ingress (-want +got):\n%s", d)
	}
}

func TestImage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ set, want string }{
		"default":              {"image.pullPolicy=Always", "ghcr.io/svcscope/svcscope:0.1.0"},
		"tag":                  {"image.tag=1.2.3", "ghcr.io/svcscope/svcscope:1.2.3"},
		"registry":             {"image.registry=r.example", "r.example/svcscope/svcscope:0.1.0"},
		"global registry wins": {"image.registry=r.example,global.imageRegistry=g.example:5000", "g.example:5000/svcscope/svcscope:0.1.0"},
		"digest wins": {
			"image.tag=1.2.3,image.digest=sha256:" + strings.Repeat("0a", 32),
			"ghcr.io/svcscope/svcscope@sha256:" + strings.Repeat("0a", 32),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := container(t, render(t, "--set", test.set)).Image; got != test.want {
				t.Errorf("image is %s, want %s", got, test.want)
			}
		})
	}
	spec := podSpec(t, render(t, "--set-json", `global.imagePullSecrets=["a"]`, "--set-json", `imagePullSecrets=[{"name":"b"}]`))
	if d := cmp.Diff([]corev1.LocalObjectReference{{Name: "a"}, {Name: "b"}}, spec.ImagePullSecrets); d != "" {
		t.Errorf("pull secrets (-want +got):\n%s", d)
	}
}

func TestRollout(t *testing.T) {
	t.Parallel()
	ds := one[*appsv1.DaemonSet](t, render(t))
	tenth := intstr.FromString("10%")
	want := appsv1.DaemonSetUpdateStrategy{
		Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &tenth},
	}
	if d := cmp.Diff(want, ds.Spec.UpdateStrategy); d != "" {
		t.Errorf("update strategy (-want +got):\n%s", d)
	}
	onDelete := one[*appsv1.DaemonSet](t, render(t, "--set", "updateStrategy.type=OnDelete")).Spec.UpdateStrategy
	if onDelete.Type != appsv1.OnDeleteDaemonSetStrategyType || onDelete.RollingUpdate != nil {
		t.Errorf("update strategy is %v, want OnDelete alone", onDelete)
	}
	if d := cmp.Diff([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, ds.Spec.Template.Spec.Tolerations); d != "" {
		t.Errorf("tolerations (-want +got):\n%s", d)
	}
}

// TestMemory: the garbage collector has a limit of its own, below the one at
// which the kernel kills, in each unit; and there is no CPU limit.
func TestMemory(t *testing.T) {
	t.Parallel()
	r := container(t, render(t)).Resources
	if !r.Limits.Cpu().IsZero() || r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() {
		t.Errorf("resources are %v", r)
	}
	for _, limit := range []string{"512Mi", "1Gi", "0.5Gi", "300M", "1G", "268435456"} {
		c := container(t, render(t, "--set-string", "resources.limits.memory="+limit))
		var got int64
		for _, e := range c.Env {
			if e.Name == "GOMEMLIMIT" {
				n, err := strconv.ParseInt(e.Value, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				got = n
			}
		}
		hard := c.Resources.Limits.Memory().Value()
		if got < hard*85/100 || got > hard*95/100 {
			t.Errorf("GOMEMLIMIT is %d at a memory limit of %s, want about 90 %%", got, limit)
		}
	}
	for _, e := range container(t, render(t, "--set-json", `resources.limits=null`)).Env {
		if e.Name == "GOMEMLIMIT" {
			t.Error("GOMEMLIMIT is set without a memory limit")
		}
	}
}

// TestReleasesSideBySide: two releases in one namespace have no name in common.
func TestReleasesSideBySide(t *testing.T) {
	t.Parallel()
	h := needHelm(t)
	all := []string{"--namespace=x", operator, "--set", "dashboards.enabled=true,networkPolicy.enabled=true,prometheus.monitor.enabled=true," +
		"prometheus.podMonitor.enabled=true", "--set-json", `web.config.inline={"http_server_config":{"http2":true}}`}
	seen := map[string]string{}
	for _, name := range []string{"svcscope", "svcscope-two", "three"} {
		text, err := h.template(name, all...)
		if err != nil {
			t.Fatal(err)
		}
		objects := mustDecode(t, text)
		if len(objects) < 13 {
			t.Errorf("release %s has %v only", name, sorted(objects))
		}
		for o := range objects {
			if seen[o] != "" {
				t.Errorf("%s is of release %s and of %s", o, seen[o], name)
			}
			seen[o] = name
		}
	}
	if seen["DaemonSet x/three-svcscope"] == "" || seen["DaemonSet x/svcscope"] == "" {
		t.Errorf("names are not made of the release's: %v", seen)
	}
}
