// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// backoff is between two attempts at one resource: with its jitter up to 30 s,
// so that an API that comes back is found soon, and not by all nodes at once.
func backoff() wait.Backoff {
	return wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 0.5, Cap: 20 * time.Second, Steps: 25}
}

// source is how a reflector lists and watches one kind. It tells report about
// every attempt, because the reflector keeps most failures to itself.
type source struct {
	kind     kind
	client   rest.Interface
	resource string
	metadata bool // only that is asked for
	selector func(*metav1.ListOptions)
	decode   func([]byte) (runtime.Object, error) // one object of a list
	backoff  wait.Backoff
	report   func(kind, event)
}

// event is what happened to one attempt, or to a watch that had been opened.
type event struct {
	op  string // list or watch
	err error
	end bool // a watch ended, for whatever reason
}

// List is never called: the reflector prefers ListWithContext.
func (s *source) List(o metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), o)
}

// Watch is never called: the reflector prefers WatchWithContext.
func (s *source) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), o)
}

// ListWithContext asks for one page.
func (s *source) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	s.selector(&o)
	obj, err := s.list(ctx, &o)
	s.report(s.kind, event{op: "list", err: err})
	if err != nil {
		return nil, reason(err)
	}
	return obj, nil
}

// list converts the objects while they arrive. Where something answers in
// another form it asks again, for the client to decode.
func (s *source) list(ctx context.Context, o *metav1.ListOptions) (runtime.Object, error) {
	body, err := s.get(o).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	list, err := readList(body, s.decode)
	switch {
	case errors.Is(err, errNotProtobuf):
		return s.get(o).Do(ctx).Get()
	case err != nil:
		return nil, err
	}
	return list, nil
}

// WatchWithContext opens a watch. It does not return before the API has given
// an answer of its own: where a server is merely not there, the reflector would
// list anew what a watch could go on with, or list plainly instead of
// streaming, and not all of its waiting ends with the context.
func (s *source) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.selector(&o)
	o.Watch = true
	delay := s.backoff // a copy: every call starts anew
	for {
		w, err := s.get(&o).Watch(ctx)
		if ctx.Err() != nil {
			if err == nil {
				w.Stop()
			}
			return nil, ctx.Err()
		}
		if o.SendInitialEvents != nil && apierrors.IsInvalid(err) {
			return nil, err // an older server, not a failure: a plain list follows
		}
		s.report(s.kind, event{op: "watch", err: err})
		if err == nil {
			return &stream{Interface: w, ended: func() {
				s.report(s.kind, event{op: "watch", end: true})
			}}, nil
		}
		if !unavailable(err) {
			return nil, err
		}
		if !sleep(ctx, delay.Step()) {
			return nil, ctx.Err()
		}
	}
}

func (s *source) get(o *metav1.ListOptions) *rest.Request {
	// The client's own retries would hide for seconds that a server refuses.
	r := s.client.Get().Resource(s.resource).VersionedParams(o, metav1.ParameterCodec).MaxRetries(0)
	if s.metadata {
		kind := "PartialObjectMetadataList"
		if o.Watch {
			kind = "PartialObjectMetadata"
		}
		as := ";as=" + kind + ";g=" + metav1.GroupName + ";v=v1"
		r.SetHeader("Accept", protobufType+as+","+runtime.ContentTypeJSON+as)
	}
	return r
}

// unavailable reports whether err says nothing about the request: no answer at
// all, or one that asks to come back later.
func unavailable(err error) bool {
	if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
		return true
	}
	return apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err)
}

// reason takes the URL of a request out of err: it is long and says nothing
// that the operation does not.
func reason(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// stream tells once when it was stopped, which the reflector does at its end.
type stream struct {
	watch.Interface
	once  sync.Once
	ended func()
}

// Stop ends the watch.
func (s *stream) Stop() {
	s.Interface.Stop()
	s.once.Do(s.ended)
}

// sink is the reflector's store: it converts objects and passes them on.
type sink[T any] struct {
	kind    kind
	object  func() message                 // an empty one
	convert func(runtime.Object) (T, bool) // false: nothing to keep
	apply   func(func(*tables))
	set     func(*tables, T)
	remove  func(*tables, runtime.Object)
	replace func(*tables, []T)
}

// Add converts and stores one object.
func (s *sink[T]) Add(obj any) error { return s.Update(obj) }

// Update converts and stores one object.
func (s *sink[T]) Update(obj any) error {
	raw, ok := obj.(runtime.Object)
	if !ok {
		return fmt.Errorf("store %s: unexpected %T", s.kind, obj)
	}
	v, ok := s.convert(raw)
	s.apply(func(t *tables) {
		if ok {
			s.set(t, v)
		} else {
			s.remove(t, raw)
		}
	})
	return nil
}

// Delete removes one object.
func (s *sink[T]) Delete(obj any) error {
	raw, ok := obj.(runtime.Object)
	if !ok {
		return fmt.Errorf("remove from %s: unexpected %T", s.kind, obj)
	}
	s.apply(func(t *tables) { s.remove(t, raw) })
	return nil
}

// message is an object of the API that decodes itself.
type message interface {
	runtime.Object
	Unmarshal([]byte) error
}

// decode makes a converted object of one object's message.
func (s *sink[T]) decode(b []byte) (runtime.Object, error) {
	o := s.object()
	if err := o.Unmarshal(b); err != nil {
		return nil, err
	}
	v, keep := s.convert(o)
	return converted[T]{v, keep}, nil
}

// Replace takes a whole list: what decode made of a plain list and Transformer
// of one that was streamed, or objects as the client decodes them.
func (s *sink[T]) Replace(objs []any, _ string) error {
	list := make([]T, 0, len(objs))
	for i, obj := range objs {
		objs[i] = nil // one object at a time becomes garbage
		switch obj := obj.(type) {
		case converted[T]:
			if obj.keep {
				list = append(list, obj.value)
			}
		case runtime.Object:
			if v, ok := s.convert(obj); ok {
				list = append(list, v)
			}
		default:
			return fmt.Errorf("replace %s: unexpected %T", s.kind, obj)
		}
	}
	s.apply(func(t *tables) {
		s.replace(t, list)
		t.hasListed(s.kind)
	})
	return nil
}

// Resync is not used.
func (s *sink[T]) Resync() error { return nil }

// converted is what a streaming list is collected in.
type converted[T any] struct {
	value T
	keep  bool
}

// The reflector finds Transformer by its exact type.
var _ cache.TransformingStore = (*sink[any])(nil)

// Transformer makes the reflector collect a streaming list in converted form.
func (s *sink[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		raw, ok := obj.(runtime.Object)
		if !ok {
			return nil, fmt.Errorf("convert %s: unexpected %T", s.kind, obj)
		}
		v, keep := s.convert(raw)
		return converted[T]{v, keep}, nil
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
