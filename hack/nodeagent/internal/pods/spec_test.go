// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "EMPTY": "", "B": "$(A)"}
	for in, want := range map[string]string{
		"":                "",
		"plain":           "plain",
		"$(A)":            "1",
		"x$(A)y$(EMPTY)z": "x1yz",
		"$(B)":            "$(A)", // not expanded again
		"$(NONE)":         "$(NONE)",
		"$$(A)":           "$(A)",
		"$$$(A)":          "$1",
		"$A ${A} $":       "$A ${A} $",
		"$(A":             "$(A",
		"$(A$(A)":         "$(A$(A)",
		"[$(A)]:80":       "[1]:80",
		"$()":             "$()",
	} {
		if got := expand(in, values); got != want {
			t.Errorf("expand(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestEnvironmentOrder(t *testing.T) {
	v := &vars{}
	v.set("B", "spec")
	v.set("PATH", "/spec")
	v.set("B", "later")
	got := v.onto([]string{"PATH=/bin", "I=image"}, "node1")
	want := []string{"PATH=/spec", "HOSTNAME=node1", "HOME=/", "I=image", "B=later"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestField(t *testing.T) {
	p := &pod{node: &Node{addresses: []string{"192.0.2.1", "2001:db8::1"}}, obj: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "n", UID: "u", Labels: map[string]string{"a": "1", "b": `x"y`}, Annotations: map[string]string{"k/l": "v"},
		},
		Spec: corev1.PodSpec{NodeName: "node1", ServiceAccountName: "sa"},
	}}
	for path, want := range map[string]string{
		"metadata.name": "p", "metadata.namespace": "n", "metadata.uid": "u", "metadata.labels['a']": "1",
		"metadata.annotations['k/l']": "v", "metadata.labels": "a=\"1\"\nb=\"x\\\"y\"",
		"spec.nodeName": "node1", "spec.serviceAccountName": "sa",
		"status.hostIP": "192.0.2.1", "status.podIP": "192.0.2.1", "status.podIPs": "192.0.2.1,2001:db8::1",
	} {
		if got, err := p.field(path); got != want || err != nil {
			t.Errorf("field %s is %q, %v; want %q", path, got, err, want)
		}
	}
	if got, err := p.field("status.phase"); err == nil {
		t.Errorf("field status.phase is %q, want an error", got)
	}
}

func TestResourceField(t *testing.T) {
	c := &corev1.Container{Resources: corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{"memory": resource.MustParse("512Mi"), "cpu": resource.MustParse("1500m")},
		Requests: corev1.ResourceList{"cpu": resource.MustParse("20m")},
	}}
	for _, x := range []struct{ name, divisor, want string }{
		{"limits.memory", "0", "536870912"},
		{"limits.memory", "1Mi", "512"},
		{"limits.memory", "1Gi", "1"},
		{"limits.cpu", "0", "2"},
		{"limits.cpu", "1m", "1500"},
		{"requests.cpu", "1", "1"},
	} {
		r := &corev1.ResourceFieldSelector{Resource: x.name, Divisor: resource.MustParse(x.divisor)}
		if got, err := resourceField(c, r); got != x.want || err != nil {
			t.Errorf("%s by %s is %q, %v; want %q", x.name, x.divisor, got, err, x.want)
		}
	}
	if got, err := resourceField(c, &corev1.ResourceFieldSelector{Resource: "requests.memory"}); err == nil {
		t.Errorf("a request that is not there is %q, want an error", got)
	}
}

func TestServiceVars(t *testing.T) {
	got := map[string]string{}
	serviceVars(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "my-api"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: "TCP"}}},
	}, got)
	serviceVars(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "headless"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}}, got)
	want := map[string]string{
		"MY_API_SERVICE_HOST": "10.96.0.1", "MY_API_SERVICE_PORT": "443", "MY_API_SERVICE_PORT_HTTPS": "443",
		"MY_API_PORT": "tcp://10.96.0.1:443", "MY_API_PORT_443_TCP": "tcp://10.96.0.1:443",
		"MY_API_PORT_443_TCP_PROTO": "tcp", "MY_API_PORT_443_TCP_PORT": "443", "MY_API_PORT_443_TCP_ADDR": "10.96.0.1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file, socket, link := filepath.Join(dir, "file"), filepath.Join(dir, "socket"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{file, corev1.HostPathFile, true},
		{link, corev1.HostPathFile, true},
		{dir, corev1.HostPathFile, false},
		{dir + "/none", corev1.HostPathFile, false},
		{dir, corev1.HostPathDirectory, true},
		{file, corev1.HostPathDirectory, false},
		{dir + "/none", corev1.HostPathDirectory, false},
		{socket, corev1.HostPathSocket, true},
		{file, corev1.HostPathSocket, false},
		{"/dev/null", corev1.HostPathCharDev, true},
		{"/dev/null", corev1.HostPathBlockDev, false},
		{file, corev1.HostPathUnset, true},
		{dir + "/none", corev1.HostPathUnset, false},
		{file, "Nonsense", false},
	} {
		err := hostPath(&corev1.HostPathVolumeSource{Path: c.path, Type: &c.kind})
		if (err == nil) != c.ok {
			t.Errorf("%s as %q: %v, want ok to be %v", c.path, c.kind, err, c.ok)
		}
	}
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("a check made the path")
	}
	for name, kind := range map[string]corev1.HostPathType{"new-dir": corev1.HostPathDirectoryOrCreate, "new-file": corev1.HostPathFileOrCreate} {
		path := filepath.Join(dir, name)
		for range 2 {
			if err := hostPath(&corev1.HostPathVolumeSource{Path: path, Type: &kind}); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() != (name == "new-dir") {
			t.Errorf("%s made %v, %v", kind, info, err)
		}
	}
}

// plainSpec is one that is supported, as the API server completes it.
func plainSpec() *corev1.PodSpec {
	yes, no, uid := true, false, int64(0)
	return &corev1.PodSpec{
		HostNetwork: true, RestartPolicy: "Always", DNSPolicy: "Default", ServiceAccountName: "sa",
		Tolerations: []corev1.Toleration{{Operator: "Exists"}}, SecurityContext: &corev1.PodSecurityContext{},
		Volumes: []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		Containers: []corev1.Container{{
			Name: "c", Image: "i", Args: []string{"a"}, VolumeMounts: []corev1.VolumeMount{{Name: "e", MountPath: "/e", ReadOnly: true}},
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/"}}, PeriodSeconds: 5},
			SecurityContext: &corev1.SecurityContext{
				RunAsUser: &uid, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: "RuntimeDefault"},
			},
		}},
	}
}

func TestUnsupported(t *testing.T) {
	yes, profile := true, "p"
	for want, change := range map[string]func(*corev1.PodSpec){
		"":                         func(*corev1.PodSpec) {},
		"spec.hostPID=true":        func(s *corev1.PodSpec) { s.HostPID = true },
		"spec.hostNetwork=false":   func(s *corev1.PodSpec) { s.HostNetwork = false },
		"spec.restartPolicy=Never": func(s *corev1.PodSpec) { s.RestartPolicy = "Never" },
		"spec.containers[0].securityContext.privileged=true": func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext.Privileged = &yes
		},
		"spec.containers[0].securityContext.seccompProfile.localhostProfile=p spec.containers[0].securityContext.seccompProfile.type=Localhost": func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: "Localhost", LocalhostProfile: &profile}
		},
		"spec.initContainers[0].name=i spec.initContainers[0].resources=map[]": func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "i"}} },
		"spec.containers[0].lifecycle.preStop.sleep.seconds=1": func(s *corev1.PodSpec) {
			s.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}}
		},
		"spec.containers[0].livenessProbe.exec.command[0]=true": func(s *corev1.PodSpec) {
			s.Containers[0].LivenessProbe.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}
		},
		"spec.volumes[0].nfs.path=/x spec.volumes[0].nfs.server=s": func(s *corev1.PodSpec) {
			s.Volumes[0].VolumeSource = corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/x"}}
		},
		"spec.dnsPolicy=ClusterFirstWithHostNet": func(s *corev1.PodSpec) { s.DNSPolicy = "ClusterFirstWithHostNet" },
		"spec.volumes[0].emptyDir.medium=Memory spec.volumes[0].emptyDir.sizeLimit=1Mi": func(s *corev1.PodSpec) {
			limit := resource.MustParse("1Mi")
			s.Volumes[0].EmptyDir = &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: &limit}
		},
		"spec.containers[0].volumeMounts[0].mountPropagation=Bidirectional": func(s *corev1.PodSpec) {
			p := corev1.MountPropagationBidirectional
			s.Containers[0].VolumeMounts[0].MountPropagation = &p
		},
	} {
		s := plainSpec()
		change(s)
		got, err := unsupported(s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("unsupported (-want +got):\n%s", diff)
		}
	}
}

func TestWriteFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := writeFiles(dir, map[string]file{"token": {[]byte("1"), 0o400}, "a/b": {[]byte("x"), 0o644}}); err != nil {
		t.Fatal(err)
	}
	if read("token") != "1" || read("a/b") != "x" {
		t.Error("the files are not what was written")
	}
	if info, err := os.Stat(filepath.Join(dir, "token")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode of the token: %v, %v", info, err)
	}
	// A reader that holds the folder sees the old file to the end.
	old, err := os.Open(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := writeFiles(dir, map[string]file{"token": {[]byte("2"), 0o400}, "a/b": {[]byte("x"), 0o644}}); err != nil {
		t.Fatal(err)
	}
	if read("token") != "2" {
		t.Error("the new token does not show")
	}
	b := make([]byte, 1)
	if _, err := old.Read(b); err != nil || string(b) != "1" {
		t.Errorf("an open file became %q, %v", b, err)
	}
	if err := writeFiles(dir, map[string]file{"../out": {}}); err == nil {
		t.Error("a path that leads out is no error")
	}
}
