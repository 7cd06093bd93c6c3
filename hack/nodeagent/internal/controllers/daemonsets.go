// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/pods"
)

// DaemonSets keeps one pod of each DaemonSet on the node.
type DaemonSets struct {
	// Client speaks to the API server.
	Client kubernetes.Interface
	// Node is the Node object's name.
	Node string
	// Log is for what happens.
	Log *slog.Logger

	refused map[types.UID]refusal
}

// refusal delays the next try at a pod that the API server refused.
type refusal struct {
	hash  string
	until time.Time
	delay time.Duration
}

// Sync makes pods, status and what is deleted be as the DaemonSets say now.
// It waits for nothing.
func (d *DaemonSets) Sync(ctx context.Context) error {
	node, err := d.Client.CoreV1().Nodes().Get(ctx, d.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	sets, err := d.Client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list DaemonSets: %w", err)
	}
	list, err := d.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	owned := map[types.UID][]*corev1.Pod{}
	for i := range list.Items {
		if o := metav1.GetControllerOf(&list.Items[i]); o != nil && o.Kind == "DaemonSet" {
			owned[o.UID] = append(owned[o.UID], &list.Items[i])
		}
	}
	var errs []error
	for i := range sets.Items {
		ds := &sets.Items[i]
		if err := d.sync(ctx, ds, node, owned[ds.UID]); err != nil {
			errs = append(errs, fmt.Errorf("DaemonSet %s/%s: %w", ds.Namespace, ds.Name, err))
		}
		delete(owned, ds.UID)
	}
	// The garbage collector's part.
	for _, orphans := range owned {
		errs = append(errs, d.remove(ctx, orphans))
	}
	return errors.Join(errs...)
}

func (d *DaemonSets) sync(ctx context.Context, ds *appsv1.DaemonSet, node *corev1.Node, owned []*corev1.Pod) error {
	if ds.DeletionTimestamp != nil {
		return d.finish(ctx, ds, owned)
	}
	hash, err := templateHash(ds)
	if err != nil {
		return err
	}
	fits, err := d.fits(ctx, ds, node)
	if err != nil {
		return err
	}
	old := slices.DeleteFunc(slices.Clone(owned), func(p *corev1.Pod) bool {
		return p.Labels[appsv1.ControllerRevisionHashLabelKey] == hash
	})
	switch {
	case !fits:
		err = d.remove(ctx, owned)
	case len(old) > 0 && ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType:
		err = d.remove(ctx, old)
	case len(owned) == 0:
		err = d.create(ctx, ds, hash)
	}
	return errors.Join(err, d.bind(ctx, owned), d.status(ctx, ds, fits, owned, hash))
}

// templateHash tells templates apart.
func templateHash(ds *appsv1.DaemonSet) (string, error) {
	b, err := json.Marshal(ds.Spec.Template)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:5]), nil
}

// fits reports whether the node is one of the DaemonSet's.
func (d *DaemonSets) fits(ctx context.Context, ds *appsv1.DaemonSet, node *corev1.Node) (bool, error) {
	p := d.pod(ds, "")
	ok, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node)
	if err != nil || !ok {
		return false, err
	}
	_, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.FromContext(ctx), node.Spec.Taints, p.Spec.Tolerations,
		func(t *corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }, false)
	return !untolerated, nil
}

// pod is what the DaemonSet controller asks for on the node.
func (d *DaemonSets) pod(ds *appsv1.DaemonSet, hash string) *corev1.Pod {
	t := ds.Spec.Template.DeepCopy()
	p := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	p.Namespace, p.Name, p.GenerateName = ds.Namespace, "", ds.Name+"-"
	p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(ds, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = hash
	p.Labels[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(ds.Generation, 10)
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	a := p.Spec.Affinity.NodeAffinity
	if a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		a.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
	}
	terms := a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		terms[i].MatchFields = []corev1.NodeSelectorRequirement{{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{d.Node},
		}}
	}
	add := func(key string, effect corev1.TaintEffect) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect})
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	for _, k := range []string{corev1.TaintNodeDiskPressure, corev1.TaintNodeMemoryPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeUnschedulable} {
		add(k, corev1.TaintEffectNoSchedule)
	}
	if p.Spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return p
}

// create asks the API server for the pod, whose admission may refuse it: then
// an event says why, and later it is tried again.
func (d *DaemonSets) create(ctx context.Context, ds *appsv1.DaemonSet, hash string) error {
	r := d.refused[ds.UID]
	if r.hash == hash && time.Now().Before(r.until) {
		return nil
	}
	p, err := d.Client.CoreV1().Pods(ds.Namespace).Create(ctx, d.pod(ds, hash), metav1.CreateOptions{})
	about := corev1.ObjectReference{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: ds.Namespace, Name: ds.Name, UID: ds.UID}
	e := corev1.Event{Type: corev1.EventTypeNormal, Reason: "SuccessfulCreate"}
	if err == nil {
		delete(d.refused, ds.UID)
		e.Message = "Created pod: " + p.Name
		d.Log.Info("created pod", "daemonset", ds.Namespace+"/"+ds.Name, "pod", p.Name)
		return pods.Event(ctx, d.Client, about, e)
	}
	if d.refused == nil {
		d.refused = map[types.UID]refusal{}
	}
	if r.hash != hash {
		r = refusal{hash: hash, delay: time.Second / 2}
	}
	r.delay = min(2*r.delay, 30*time.Second)
	r.until = time.Now().Add(r.delay)
	d.refused[ds.UID] = r
	e.Type, e.Reason, e.Message = corev1.EventTypeWarning, "FailedCreate", "Error creating: "+err.Error()
	d.Log.Warn("pod refused", "daemonset", ds.Namespace+"/"+ds.Name, "err", err)
	return pods.Event(ctx, d.Client, about, e)
}

// bind does the scheduler's part: the pod's affinity leaves one node.
func (d *DaemonSets) bind(ctx context.Context, owned []*corev1.Pod) error {
	for _, p := range owned {
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil {
			continue
		}
		b := &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: d.Node},
		}
		if err := d.Client.CoreV1().Pods(p.Namespace).Bind(ctx, b, metav1.CreateOptions{}); err != nil && !gone(err) {
			return fmt.Errorf("bind pod %s: %w", p.Name, err)
		}
	}
	return nil
}

func gone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

func (d *DaemonSets) remove(ctx context.Context, list []*corev1.Pod) error {
	for _, p := range list {
		if p.DeletionTimestamp != nil {
			continue
		}
		o := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}}
		if err := d.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, o); err != nil && !gone(err) {
			return fmt.Errorf("delete pod %s: %w", p.Name, err)
		}
	}
	return nil
}

// finish ends a DaemonSet that waits for its pods to be deleted first.
func (d *DaemonSets) finish(ctx context.Context, ds *appsv1.DaemonSet, owned []*corev1.Pod) error {
	if !slices.Contains(ds.Finalizers, metav1.FinalizerDeleteDependents) {
		return nil
	}
	if len(owned) > 0 {
		return d.remove(ctx, owned)
	}
	ds.Finalizers = slices.DeleteFunc(ds.Finalizers, func(f string) bool { return f == metav1.FinalizerDeleteDependents })
	_, err := d.Client.AppsV1().DaemonSets(ds.Namespace).Update(ctx, ds, metav1.UpdateOptions{})
	if err != nil && !gone(err) {
		return err
	}
	return nil
}

// status is what `kubectl rollout status` reads.
func (d *DaemonSets) status(ctx context.Context, ds *appsv1.DaemonSet, fits bool, owned []*corev1.Pod, hash string) error {
	s := appsv1.DaemonSetStatus{ObservedGeneration: ds.Generation, Conditions: ds.Status.Conditions, CollisionCount: ds.Status.CollisionCount}
	if fits {
		s.DesiredNumberScheduled = 1
	}
	for _, p := range owned {
		if p.Spec.NodeName != d.Node || p.DeletionTimestamp != nil {
			continue
		}
		if !fits {
			s.NumberMisscheduled++
			continue
		}
		s.CurrentNumberScheduled = 1
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] == hash {
			s.UpdatedNumberScheduled = 1
		}
		for _, c := range p.Status.Conditions {
			if c.Type != corev1.PodReady || c.Status != corev1.ConditionTrue {
				continue
			}
			s.NumberReady = 1
			if time.Since(c.LastTransitionTime.Time) >= time.Duration(ds.Spec.MinReadySeconds)*time.Second {
				s.NumberAvailable = 1
			}
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	if equality.Semantic.DeepEqual(s, ds.Status) {
		return nil
	}
	ds.Status = s
	_, err := d.Client.AppsV1().DaemonSets(ds.Namespace).UpdateStatus(ctx, ds, metav1.UpdateOptions{})
	if err != nil && !gone(err) {
		return fmt.Errorf("status: %w", err)
	}
	return nil
}
