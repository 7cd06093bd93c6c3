// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// world is an API server with a node and a DaemonSet.
type world struct {
	t      *testing.T
	client *fake.Clientset
	sets   *DaemonSets
}

func newWorld(t *testing.T, change func(*appsv1.DaemonSet)) *world {
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "ds", UID: "ds", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}},
				Spec:       corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	}
	if change != nil {
		change(ds)
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node1", Labels: map[string]string{"os": "linux"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "t", Effect: corev1.TaintEffectNoSchedule}}},
	}
	if change == nil {
		node.Spec.Taints = nil
	}
	client := fake.NewClientset(node, ds)
	w := &world{t: t, client: client, sets: &DaemonSets{Client: client, Node: "node1", Log: slog.New(slog.DiscardHandler)}}
	client.PrependReactor("create", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() == "binding" {
			b := a.(k8stesting.CreateAction).GetObject().(*corev1.Binding)
			// The client is locked while it calls this.
			pods := corev1.SchemeGroupVersion.WithResource("pods")
			o, err := client.Tracker().Get(pods, "n", b.Name)
			if err != nil {
				return true, nil, err
			}
			p := o.(*corev1.Pod).DeepCopy()
			p.Spec.NodeName = b.Target.Name
			return true, b, client.Tracker().Update(pods, p, "n")
		}
		p := a.(k8stesting.CreateAction).GetObject().(*corev1.Pod)
		p.Name, p.UID = p.GenerateName+p.Labels[appsv1.ControllerRevisionHashLabelKey], "pod"
		return false, nil, nil
	})
	return w
}

func (w *world) sync() {
	w.t.Helper()
	if err := w.sets.Sync(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pods() []corev1.Pod {
	w.t.Helper()
	l, err := w.client.CoreV1().Pods("n").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return l.Items
}

func (w *world) set() *appsv1.DaemonSet {
	w.t.Helper()
	ds, err := w.client.AppsV1().DaemonSets("n").Get(w.t.Context(), "ds", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return ds
}

func TestRollout(t *testing.T) {
	w := newWorld(t, nil)
	w.sync() // creates
	w.sync() // binds
	w.sync()
	all := w.pods()
	if len(all) != 1 || all[0].Spec.NodeName != "node1" || metav1.GetControllerOf(&all[0]).Name != "ds" {
		t.Fatalf("pods are %v, want one of ds on node1", all)
	}
	want := appsv1.DaemonSetStatus{
		ObservedGeneration: 1, DesiredNumberScheduled: 1, CurrentNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberUnavailable: 1,
	}
	if diff := cmp.Diff(want, w.set().Status); diff != "" {
		t.Errorf("status before the pod is ready (-want +got):\n%s", diff)
	}
	p := all[0]
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if _, err := w.client.CoreV1().Pods("n").UpdateStatus(t.Context(), &p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.sync()
	want.NumberReady, want.NumberAvailable, want.NumberUnavailable = 1, 1, 0
	if diff := cmp.Diff(want, w.set().Status); diff != "" {
		t.Errorf("status of a ready pod (-want +got):\n%s", diff)
	}
	old := p.Labels[appsv1.ControllerRevisionHashLabelKey]
	ds := w.set()
	ds.Generation, ds.Spec.Template.Spec.Containers[0].Image = 2, "j"
	if _, err := w.client.AppsV1().DaemonSets("n").Update(t.Context(), ds, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.sync() // removes
	if s := w.set().Status; s.UpdatedNumberScheduled != 0 || s.ObservedGeneration != 2 {
		t.Errorf("status with a pod of the old template: %v", s)
	}
	w.sync() // creates
	if all = w.pods(); len(all) != 1 || all[0].Labels[appsv1.ControllerRevisionHashLabelKey] == old {
		t.Errorf("pods are %v, want one of the new template", all)
	}
	if err := w.client.AppsV1().DaemonSets("n").Delete(t.Context(), "ds", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.sync()
	if all = w.pods(); len(all) != 0 {
		t.Errorf("pods without their DaemonSet: %v", all)
	}
}

func TestNodeDoesNotFit(t *testing.T) {
	tolerate := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	for name, c := range map[string]struct {
		spec corev1.PodSpec
		pods int
	}{
		"untolerated":    {corev1.PodSpec{}, 0},
		"tolerated":      {corev1.PodSpec{Tolerations: tolerate}, 1},
		"other selector": {corev1.PodSpec{Tolerations: tolerate, NodeSelector: map[string]string{"os": "windows"}}, 0},
		"selector":       {corev1.PodSpec{Tolerations: tolerate, NodeSelector: map[string]string{"os": "linux"}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec = c.spec })
			w.sync()
			if all := w.pods(); len(all) != c.pods {
				t.Errorf("%d pods, want %d", len(all), c.pods)
			}
			if got := w.set().Status.DesiredNumberScheduled; int(got) != c.pods {
				t.Errorf("desired is %d, want %d", got, c.pods)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t, nil)
	tries := 0
	w.client.PrependReactor("create", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		tries++
		return true, nil, errors.New(`violates PodSecurity "restricted:latest"`)
	})
	w.sync()
	w.sync()
	if tries != 1 {
		t.Errorf("%d tries at once, want 1", tries)
	}
	w.sets.refused["ds"] = refusal{hash: w.sets.refused["ds"].hash, delay: time.Second}
	w.sync()
	if r := w.sets.refused["ds"]; tries != 2 || r.delay != 2*time.Second {
		t.Errorf("%d tries and the delay %v after the delay is over, want 2 and 2s", tries, r.delay)
	}
	events, err := w.client.CoreV1().Events("n").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) != 2 {
		t.Fatalf("events: %v, %v; want two", events, err)
	}
	e := events.Items[0]
	if e.Type != "Warning" || e.Reason != "FailedCreate" || e.Message != `Error creating: violates PodSecurity "restricted:latest"` || e.InvolvedObject.Name != "ds" {
		t.Errorf("the event is %v", e)
	}
}

func TestForegroundDeletion(t *testing.T) {
	w := newWorld(t, nil)
	w.sync()
	ds := w.set()
	now := metav1.Now()
	ds.DeletionTimestamp, ds.Finalizers = &now, []string{metav1.FinalizerDeleteDependents}
	if _, err := w.client.AppsV1().DaemonSets("n").Update(t.Context(), ds, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.sync()
	if all := w.pods(); len(all) != 0 {
		t.Errorf("pods of a DaemonSet that is being deleted: %v", all)
	}
	w.sync()
	if f := w.set().Finalizers; len(f) != 0 {
		t.Errorf("finalizers are %v after the pods are gone", f)
	}
}

func TestNamespaces(t *testing.T) {
	now := metav1.Now()
	client := fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "b", DeletionTimestamp: &now, Finalizers: []string{"x"}}},
	)
	for range 2 {
		if err := Namespaces(t.Context(), client, []byte("CA")); err != nil {
			t.Fatal(err)
		}
	}
	cm, err := client.CoreV1().ConfigMaps("a").Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
	if err != nil || cm.Data["ca.crt"] != "CA" {
		t.Errorf("the ConfigMap is %v, %v", cm, err)
	}
	all, err := client.CoreV1().ServiceAccounts("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(all.Items) != 1 || all.Items[0].Namespace != "a" {
		t.Errorf("ServiceAccounts are %v, %v; want one, in a", all.Items, err)
	}
}
