// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// publish writes the pod's status to the API where it has changed.
func (p *pod) publish(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.current()
	if equality.Semantic.DeepEqual(now, p.status) {
		return
	}
	// Replaced as a whole but for what is not there, such as qosClass.
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.obj.UID}, "status": now})
	if err != nil {
		p.log.Error("status", "err", err)
		return
	}
	_, err = p.node.client.CoreV1().Pods(p.obj.Namespace).Patch(ctx, p.obj.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil {
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			p.log.Error("status", "err", err)
		}
		return
	}
	p.status = now
}

// current returns the status as it is now. The caller holds mu.
func (p *pod) current() corev1.PodStatus {
	s := *p.status.DeepCopy()
	start := metav1.NewTime(p.started).Rfc3339Copy()
	s.StartTime = &start
	s.HostIP, s.PodIP = p.node.addresses[0], p.node.addresses[0]
	s.HostIPs, s.PodIPs = nil, nil
	for _, a := range p.node.addresses {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a})
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a})
	}
	s.Phase = corev1.PodPending
	s.ContainerStatuses = nil
	var unready []string
	for _, c := range p.containers {
		s.ContainerStatuses = append(s.ContainerStatuses, *c.status.DeepCopy())
		if c.everStarted {
			s.Phase = corev1.PodRunning
		}
		if !c.status.Ready {
			unready = append(unready, c.spec.Name)
		}
	}
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionTrue}
		if !ok {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, reason, message
		}
		c.LastTransitionTime = metav1.Now().Rfc3339Copy()
		for i, old := range s.Conditions {
			if old.Type != t {
				continue
			}
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			s.Conditions[i] = c
			return
		}
		s.Conditions = append(s.Conditions, c)
	}
	why := "containers with unready status: [" + strings.Join(unready, " ") + "]"
	set(corev1.PodInitialized, true, "", "")
	set(corev1.ContainersReady, len(unready) == 0, "ContainersNotReady", why)
	set(corev1.PodReady, len(unready) == 0, "ContainersNotReady", why)
	return s
}
