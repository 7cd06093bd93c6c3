// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/svcscope/svcscope/pkg/service"
)

// The recorders of client-go would write Events as well. They bring sixteen modules, for
// patches of any type by its OpenAPI schema, and three megabytes into the binary; here
// three fields of one type change.

const (
	// component is what Events name as their source, beside the node.
	component = "svcscope"
	// lostReason is that of Events of pods that lose packets.
	lostReason = "PacketsDropped"
	// maxLost is how many losses may wait to be written. retryLost is between two attempts while the API is away.
	maxLost   = 100
	retryLost = 30 * time.Second
	// maxEvents is how many Events are remembered, and eventKept for how long after they
	// were written last: as long as the API keeps them by default.
	maxEvents = 1000
	eventKept = time.Hour
)

// loss is what Lost is told.
type loss struct {
	pod     *service.Pod
	what    string
	packets uint64
	since   time.Time
}

// Lost tells of packets that a pod has lost since a time, in an Event of the pod. What
// says of which these are: there is one Event of each pod and text, whose count grows.
// It does not wait, and does nothing unless Config.Events; what the API refuses is
// dropped. It returns false where too many wait to be written.
func (w *Watcher) Lost(pod *service.Pod, what string, packets uint64, since time.Time) bool {
	if !w.cfg.Events {
		return true
	}
	select {
	case w.losses <- loss{pod, what, packets, since}:
		return true
	default:
		return false
	}
}

// writeEvents writes Events of what Lost is told, until ctx ends.
func (w *Watcher) writeEvents(ctx context.Context) {
	e := &eventWriter{
		client: w.clients.events, log: w.cfg.Logger, source: corev1.EventSource{Component: component, Host: w.cfg.NodeName},
		waiting: make(map[lossKey]*loss), written: make(map[lossKey]*corev1.Event),
	}
	retry := time.NewTicker(w.cfg.retry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-w.losses:
			if len(e.waiting) < maxLost {
				e.waiting[lossKey{l.pod.UID, l.what}] = &l
			}
			if !e.away {
				e.writeAll(ctx)
			}
		case <-retry.C:
			e.writeAll(ctx)
		}
	}
}

// eventWriter writes Events. It is for one goroutine.
type eventWriter struct {
	client  rest.Interface
	log     *slog.Logger
	source  corev1.EventSource
	waiting map[lossKey]*loss
	away    bool                      // the API was, at the last attempt
	written map[lossKey]*corev1.Event // as they were written last
	failed  int                       // attempts in a row
}

// lossKey is what losses of one Event have in common.
type lossKey struct{ uid, what string }

// writeAll writes what waits, until the API is away.
func (e *eventWriter) writeAll(ctx context.Context) {
	for key, l := range e.waiting {
		err := e.write(ctx, key, l)
		e.note(ctx, err)
		if e.away = err != nil && unavailable(err); e.away {
			return
		}
		delete(e.waiting, key)
	}
}

// write changes the Event of a loss, or makes one: the API forgets them.
func (e *eventWriter) write(ctx context.Context, key lossKey, l *loss) error {
	event := e.event(l, e.written[key])
	var err error
	if event.Name != "" {
		err = e.patch(ctx, event)
	}
	if event.Name == "" || apierrors.IsNotFound(err) {
		event.Name = ""
		err = e.create(ctx, event)
	}
	if err == nil {
		e.remember(key, event)
	}
	return err
}

// event is the one of a loss, after old, which may be nil.
func (e *eventWriter) event(l *loss, old *corev1.Event) *corev1.Event {
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: l.pod.Name.Namespace, GenerateName: l.pod.Name.Name + "."},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: l.pod.Name.Namespace, Name: l.pod.Name.Name, UID: types.UID(l.pod.UID)},
		Type:           corev1.EventTypeWarning, Reason: lostReason,
		Message:        fmt.Sprintf("%s: %d since %s", l.what, l.packets, l.since.UTC().Format(time.RFC3339)),
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: e.source, ReportingController: e.source.Component, ReportingInstance: e.source.Host,
	}
	if old != nil {
		event.Name, event.FirstTimestamp, event.Count = old.Name, old.FirstTimestamp, old.Count+1
	}
	return event
}

func (e *eventWriter) create(ctx context.Context, event *corev1.Event) error {
	made := &corev1.Event{}
	err := e.client.Post().Namespace(event.Namespace).Resource("events").Body(event).MaxRetries(0).Do(ctx).Into(made)
	event.Name = made.Name
	return err
}

// patch writes what changes of an Event.
func (e *eventWriter) patch(ctx context.Context, event *corev1.Event) error {
	patch, err := json.Marshal(struct {
		Count         int32       `json:"count"`
		LastTimestamp metav1.Time `json:"lastTimestamp"`
		Message       string      `json:"message"`
	}{event.Count, event.LastTimestamp, event.Message})
	if err != nil {
		return err
	}
	return e.client.Patch(types.MergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).
		Body(patch).MaxRetries(0).Do(ctx).Error()
}

// remember keeps what was written, and forgets what the API has forgotten.
func (e *eventWriter) remember(key lossKey, event *corev1.Event) {
	if len(e.written) >= maxEvents {
		maps.DeleteFunc(e.written, func(_ lossKey, old *corev1.Event) bool {
			return event.LastTimestamp.Sub(old.LastTimestamp.Time) >= eventKept
		})
	}
	if len(e.written) >= maxEvents {
		clear(e.written) // those to come are made anew
	}
	e.written[key] = event
}

// note logs when Events begin to fail, and when they are written again. A namespace that
// is going takes no Events, which is no fault.
func (e *eventWriter) note(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil, apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
	case err != nil:
		if e.failed == 0 {
			e.log.Warn("kubernetes events cannot be written", "err", reason(err))
		}
		e.failed++
	case e.failed > 0:
		e.log.Info("kubernetes events are written again", "failed", e.failed)
		e.failed = 0
	}
}
