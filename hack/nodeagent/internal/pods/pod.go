// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod is one that runs here.
type pod struct {
	node *Node
	obj  *corev1.Pod // as it was when it came; its spec can't change
	dir  string
	log  *slog.Logger

	volumes    map[string]string // paths on the node, by name
	containers []*Container
	started    time.Time

	stopping chan struct{} // closed when containers are to end
	once     sync.Once     // closes stopping
	grace    time.Duration // set before stopping is closed
	keep     atomic.Bool   // the API's object stays
	done     chan struct{} // closed when nothing of it is left

	mu     sync.Mutex // guards status and what containers report
	status corev1.PodStatus
}

func newPod(n *Node, obj *corev1.Pod) *pod {
	p := &pod{
		node: n, obj: obj, dir: n.podDir(obj.UID), log: n.log.With("pod", obj.Namespace+"/"+obj.Name),
		volumes: map[string]string{}, started: time.Now(),
		stopping: make(chan struct{}), done: make(chan struct{}), status: *obj.Status.DeepCopy(),
	}
	for i := range obj.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &obj.Spec.Containers[i]))
	}
	return p
}

// stop asks for the end; the first caller's grace period counts.
func (p *pod) stop(grace time.Duration) {
	p.once.Do(func() {
		p.grace = grace
		close(p.stopping)
	})
}

// run is the pod's life.
func (p *pod) run(ctx context.Context) {
	defer close(p.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.prepare(ctx) {
		var all sync.WaitGroup
		for _, c := range p.containers {
			all.Go(func() { c.run(ctx, c.once) })
		}
		all.Wait()
	}
	<-p.stopping
	if err := os.RemoveAll(p.dir); err != nil {
		p.log.Error("remove the pod's folder", "err", err)
	}
	p.publish(ctx)
	if p.keep.Load() {
		return
	}
	zero := int64(0)
	err := p.node.client.CoreV1().Pods(p.obj.Namespace).Delete(ctx, p.obj.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.obj.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		p.log.Error("delete pod", "err", err)
	}
	p.log.Info("pod ended")
}

// prepare checks the spec and makes the volumes; it tries until that succeeds
// or the pod is to end.
func (p *pod) prepare(ctx context.Context) bool {
	fields, err := unsupported(&p.obj.Spec)
	if err == nil && len(fields) > 0 {
		err = fmt.Errorf("the lab node agent does not support %s", strings.Join(fields, ", "))
	}
	if err != nil {
		p.refuse(ctx, "Unsupported", err)
		return false
	}
	for {
		if err = p.makeVolumes(ctx); err == nil {
			return true
		}
		p.refuse(ctx, "FailedMount", err)
		select {
		case <-p.stopping:
			return false
		case <-time.After(2 * time.Second):
		}
	}
}

// refuse says why no container can start.
func (p *pod) refuse(ctx context.Context, reason string, err error) {
	p.event(ctx, corev1.EventTypeWarning, reason, err.Error())
	for _, c := range p.containers {
		c.waiting("ContainerCreating", err.Error())
	}
	p.publish(ctx)
}

func (p *pod) makeVolumes(ctx context.Context) error {
	var errs []error
	for i := range p.obj.Spec.Volumes {
		v := &p.obj.Spec.Volumes[i]
		if _, ok := p.volumes[v.Name]; ok {
			continue
		}
		path, expires, err := p.volume(ctx, v)
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
			continue
		}
		p.volumes[v.Name] = path
		if !expires.IsZero() {
			go p.keepFresh(ctx, v, expires)
		}
	}
	return errors.Join(errs...)
}

func (p *pod) event(ctx context.Context, kind, reason, message string) {
	p.log.Info(message, "reason", reason)
	about := corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: p.obj.Namespace, Name: p.obj.Name, UID: p.obj.UID,
	}
	if err := Event(ctx, p.node.client, about, corev1.Event{Type: kind, Reason: reason, Message: message}); err != nil {
		p.log.Error("event", "err", err)
	}
}
