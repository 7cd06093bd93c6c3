// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// kinds counts the objects of the Prometheus operator, by kind.
func kinds(objects map[string]object) map[string]int {
	out := map[string]int{}
	for name := range objects {
		for _, kind := range []string{"PodMonitor", "ServiceMonitor", "PrometheusRule"} {
			if strings.HasPrefix(name, kind+" ") {
				out[kind]++
			}
		}
	}
	return out
}

// TestWhereTheOperatorIs: PodMonitor and PrometheusRule are made where the
// cluster has the kind, or as the values say; never a second monitor.
func TestWhereTheOperatorIs(t *testing.T) {
	const podMonitor, rule = "--api-versions=monitoring.coreos.com/v1/PodMonitor", "--api-versions=monitoring.coreos.com/v1/PrometheusRule"
	for name, test := range map[string]struct {
		args []string
		want map[string]int
	}{
		"no operator":         {nil, map[string]int{}},
		"operator":            {[]string{operator}, map[string]int{"PodMonitor": 1, "PrometheusRule": 1}},
		"PodMonitor alone":    {[]string{podMonitor}, map[string]int{"PodMonitor": 1}},
		"rules alone":         {[]string{rule}, map[string]int{"PrometheusRule": 1}},
		"PodMonitor off":      {[]string{operator, "--set=prometheus.podMonitor.enabled=false"}, map[string]int{"PrometheusRule": 1}},
		"rules off":           {[]string{operator, "--set=prometheusRule.enabled=false"}, map[string]int{"PodMonitor": 1}},
		"PodMonitor forced":   {[]string{"--set=prometheus.podMonitor.enabled=true"}, map[string]int{"PodMonitor": 1}},
		"rules forced":        {[]string{"--set=prometheusRule.enabled=true"}, map[string]int{"PrometheusRule": 1}},
		"ServiceMonitor":      {[]string{operator, "--set=prometheus.monitor.enabled=true"}, map[string]int{"ServiceMonitor": 1, "PrometheusRule": 1}},
		"ServiceMonitor only": {[]string{"--set=prometheus.monitor.enabled=true"}, map[string]int{"ServiceMonitor": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(test.want, kinds(render(t, test.args...))); d != "" {
				t.Errorf("objects by kind (-want +got):\n%s", d)
			}
		})
	}
}

// TestPodMonitor: the pods' port is found, series carry the node and no name
// that changes with every pod.
func TestPodMonitor(t *testing.T) {
	t.Parallel()
	objects := render(t, operator, "--set=service.portName=prom,prometheus.podMonitor.additionalLabels.release=stack",
		"--set=prometheus.podMonitor.sampleLimit=5000,prometheus.podMonitor.interval=20s")
	m := one[*monitoringv1.PodMonitor](t, objects)
	if len(m.Spec.PodMetricsEndpoints) != 1 {
		t.Fatalf("%d endpoints, want 1", len(m.Spec.PodMetricsEndpoints))
	}
	e := m.Spec.PodMetricsEndpoints[0]
	if e.Port == nil || *e.Port != container(t, objects).Ports[0].Name || *e.Port != "prom" || e.Path != "/metrics" || e.Interval != "20s" {
		t.Errorf("endpoint is %+v", e)
	}
	checkRelabelings(t, e.RelabelConfigs)
	if m.Labels["release"] != "stack" || m.Spec.JobLabel != "app.kubernetes.io/name" || m.Spec.SampleLimit == nil || *m.Spec.SampleLimit != 5000 {
		t.Errorf("labels are %v, jobLabel %s, sampleLimit %v", m.Labels, m.Spec.JobLabel, m.Spec.SampleLimit)
	}
	pods := one[*appsv1.DaemonSet](t, objects)
	if d := cmp.Diff([]string{pods.Namespace}, m.Spec.NamespaceSelector.MatchNames); d != "" {
		t.Errorf("namespaces (-want +got):\n%s", d)
	}
	if job := pods.Spec.Template.Labels[m.Spec.JobLabel]; job != "svcscope" {
		t.Errorf("the job is %q, dashboards and rules select svcscope", job)
	}
}

func checkRelabelings(t *testing.T, got []monitoringv1.RelabelConfig) {
	t.Helper()
	want := []monitoringv1.RelabelConfig{
		{SourceLabels: []monitoringv1.LabelName{"__meta_kubernetes_pod_node_name"}, TargetLabel: "node"},
		{Action: "labeldrop", Regex: "pod|container"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("relabelings (-want +got):\n%s", d)
	}
}

// TestServiceMonitor: it comes with a headless Service, which it finds.
func TestServiceMonitor(t *testing.T) {
	t.Parallel()
	none[*corev1.Service](t, render(t, operator))
	one[*corev1.Service](t, render(t, "--set=service.enabled=true"))
	objects := render(t, "--set=prometheus.monitor.enabled=true,prometheus.monitor.serviceDiscoveryRole=EndpointSlice")
	m, s := one[*monitoringv1.ServiceMonitor](t, objects), one[*corev1.Service](t, objects)
	if len(m.Spec.Endpoints) != 1 || m.Spec.Endpoints[0].Port != s.Spec.Ports[0].Name {
		t.Fatalf("endpoints are %+v, the Service's port is %s", m.Spec.Endpoints, s.Spec.Ports[0].Name)
	}
	checkRelabelings(t, m.Spec.Endpoints[0].RelabelConfigs)
	for k, v := range m.Spec.Selector.MatchLabels {
		if s.Labels[k] != v {
			t.Errorf("the Service's label %s is %q, selected is %q", k, s.Labels[k], v)
		}
	}
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Errorf("clusterIP is %q, want none", s.Spec.ClusterIP)
	}
	if m.Spec.ServiceDiscoveryRole == nil || *m.Spec.ServiceDiscoveryRole != "EndpointSlice" {
		t.Errorf("serviceDiscoveryRole is %v", m.Spec.ServiceDiscoveryRole)
	}
}

func TestScrapeAnnotations(t *testing.T) {
	t.Parallel()
	annotations := func(args ...string) map[string]string {
		return one[*appsv1.DaemonSet](t, render(t, args...)).Spec.Template.Annotations
	}
	for k := range annotations() {
		if strings.HasPrefix(k, "prometheus.io/") {
			t.Errorf("pods have the annotation %s by default", k)
		}
	}
	want := map[string]string{
		"prometheus.io/scrape": "true", "prometheus.io/port": "10988", "prometheus.io/path": "/metrics", "prometheus.io/scheme": "http",
	}
	if d := cmp.Diff(want, annotations("--set=prometheus.scrapeAnnotations=true")); d != "" {
		t.Errorf("annotations (-want +got):\n%s", d)
	}
}

// TestDashboards: a ConfigMap for each file in dashboards/, and its bytes.
func TestDashboards(t *testing.T) {
	t.Parallel()
	none[*corev1.ConfigMap](t, render(t, operator))
	paths, err := filepath.Glob(root + "/dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	configMaps := ofKind[*corev1.ConfigMap](render(t, "--set=dashboards.enabled=true,dashboards.folder=Network"))
	if len(paths) == 0 || len(configMaps) != len(paths) {
		t.Errorf("%d ConfigMaps for %d dashboards", len(configMaps), len(paths))
	}
	files := map[string]string{}
	for _, m := range configMaps {
		if m.Labels["grafana_dashboard"] != "1" || m.Annotations["grafana_folder"] != "Network" {
			t.Errorf("%s has labels %v, annotations %v", m.Name, m.Labels, m.Annotations)
		}
		if len(m.Data) != 1 {
			t.Errorf("%s has %d files, want 1", m.Name, len(m.Data))
		}
		maps.Copy(files, m.Data)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Errorf("%s is no JSON", p)
		}
		if got, ok := files[filepath.Base(p)]; !ok || got != string(b) {
			t.Errorf("%s is there: %v, and differs from the file", filepath.Base(p), ok)
		}
	}
}
