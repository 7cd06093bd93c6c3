// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/client-go/rest"
)

// fakeAPI speaks the list and watch protocol of kube-apiserver in protobuf:
// lists, streaming lists that end in a bookmark, watches from a version, 410
// in the stream for a version that is too old. It refuses what it would not be
// asked by a correct client.
type fakeAPI struct {
	t        testing.TB
	codecs   serializer.CodecFactory
	protobuf runtime.SerializerInfo
	addr     string

	mu          sync.Mutex
	server      *http.Server // nil while down
	served      chan struct{}
	version     int
	oldest      int // versions before it are gone
	objects     map[string]map[string]runtime.Object
	log         []change
	wake        chan struct{} // closed at each change
	drop        chan struct{} // closed to cut all watches
	fail        map[string]int
	noStreaming bool
	json        bool     // lists are answered in JSON
	requests    []string // "list services", "stream services", "watch services"
	events      fakeEvents
}

type change struct {
	version  int
	resource string
	event    string
	object   runtime.Object
}

func newFakeAPI(t testing.TB) *fakeAPI {
	codecs := serializer.NewCodecFactory(newScheme())
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		t.Fatal("no protobuf")
	}
	f := &fakeAPI{
		t: t, codecs: codecs, protobuf: info, version: 100, addr: "127.0.0.1:0",
		objects: map[string]map[string]runtime.Object{"services": {}, "endpointslices": {}, "nodes": {}, "pods": {}, "networkpolicies": {}},
		wake:    make(chan struct{}), drop: make(chan struct{}), fail: map[string]int{},
	}
	f.up()
	t.Cleanup(f.down)
	return f
}

func (f *fakeAPI) config() *rest.Config { return &rest.Config{Host: "http://" + f.addr} }

// up listens, after the first time on the same port.
func (f *fakeAPI) up() {
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = l.Addr().String()
	srv, served := &http.Server{Handler: f}, make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	f.mu.Lock()
	f.server, f.served = srv, served
	f.mu.Unlock()
}

// down closes the port and all connections.
func (f *fakeAPI) down() {
	f.mu.Lock()
	srv, served := f.server, f.served
	f.server = nil
	f.mu.Unlock()
	if srv == nil {
		return
	}
	_ = srv.Close() // first the port, so that no watch is opened for a moment
	f.cut()
	<-served
}

// cut ends all watches, as a load balancer does.
func (f *fakeAPI) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.drop)
	f.drop = make(chan struct{})
}

// expire forgets all versions but the newest.
func (f *fakeAPI) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.oldest = f.version
	f.log = nil
}

// setFailure makes requests for a resource, or one kind of them ("list
// services"), fail with an HTTP status; 0 ends it.
func (f *fakeAPI) setFailure(resource string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[resource] = status
}

func (f *fakeAPI) put(objs ...runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range objs {
		o = o.DeepCopyObject()
		event := "ADDED"
		resource, key := resourceOf(o), nameOf(o).String()
		if _, ok := f.objects[resource][key]; ok {
			event = "MODIFIED"
		}
		f.objects[resource][key] = o
		f.record(resource, event, o)
	}
}

func (f *fakeAPI) remove(o runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resource, key := resourceOf(o), nameOf(o).String()
	old, ok := f.objects[resource][key]
	if !ok {
		f.t.Errorf("remove %s %s: not there", resource, key)
		return
	}
	delete(f.objects[resource], key)
	f.record(resource, "DELETED", old.DeepCopyObject())
}

// record needs mu.
func (f *fakeAPI) record(resource, event string, o runtime.Object) {
	f.version++
	o.(metav1.Object).SetResourceVersion(strconv.Itoa(f.version))
	f.log = append(f.log, change{f.version, resource, event, o.DeepCopyObject()})
	close(f.wake)
	f.wake = make(chan struct{})
}

// asked returns the requests since the last call.
func (f *fakeAPI) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.requests
	f.requests = nil
	return r
}

var fakePaths = map[string]string{
	"/api/v1/services": "services",
	"/api/v1/nodes":    "nodes",
	"/apis/discovery.k8s.io/v1/endpointslices": "endpointslices",
	"/api/v1/pods": "pods",
	"/apis/networking.k8s.io/v1/networkpolicies": "networkpolicies",
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		f.write(w, r)
		return
	}
	resource, q := fakePaths[r.URL.Path], r.URL.Query()
	if resource == "" {
		f.t.Errorf("unexpected request %s %s", r.Method, r.URL)
	}
	if a := r.Header.Get("Accept"); !strings.HasPrefix(a, runtime.ContentTypeProtobuf) {
		f.t.Errorf("%s accepts %q, not protobuf first", r.URL, a)
	}
	f.wantsMetadata(r, resource)
	op := "list "
	if q.Get("watch") == "true" {
		op = "watch "
	}
	if q.Get("sendInitialEvents") == "true" {
		op = "stream "
	}
	f.mu.Lock()
	f.requests = append(f.requests, op+resource)
	status := max(f.fail[resource], f.fail[op+resource])
	if op == "stream " && f.noStreaming && status == 0 {
		status = http.StatusUnprocessableEntity
	}
	f.mu.Unlock()
	switch {
	case status != 0:
		f.refuse(w, status)
	case op == "list ":
		f.list(w, r, resource)
	default:
		f.watch(w, r, resource)
	}
}

func (f *fakeAPI) encode(o runtime.Object, gv schema.GroupVersion) []byte {
	return f.encodeWith(f.protobuf.Serializer, o, gv)
}

func (f *fakeAPI) encodeWith(s runtime.Serializer, o runtime.Object, gv schema.GroupVersion) []byte {
	var b bytes.Buffer
	if err := f.codecs.WithoutConversion().EncoderForVersion(s, gv).Encode(o, &b); err != nil {
		f.t.Errorf("encode %T: %v", o, err)
	}
	return b.Bytes()
}

func (f *fakeAPI) refuse(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	w.WriteHeader(code)
	_, _ = w.Write(f.encode(statusObject(code), corev1.SchemeGroupVersion))
}

// selected needs mu; it returns objects in the order of their names.
func (f *fakeAPI) selected(r *http.Request, resource string) []runtime.Object {
	var out []runtime.Object
	for _, key := range slices.Sorted(maps.Keys(f.objects[resource])) {
		if o := f.objects[resource][key]; f.matches(r, o) {
			out = append(out, o.DeepCopyObject())
		}
	}
	return out
}

func (f *fakeAPI) matches(r *http.Request, o runtime.Object) bool {
	l, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		f.t.Errorf("label selector: %v", err)
		return false
	}
	s, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil {
		f.t.Errorf("field selector: %v", err)
		return false
	}
	m := o.(metav1.Object)
	return l.Matches(labels.Set(m.GetLabels())) &&
		s.Matches(fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace(), "spec.nodeName": nodeOf(o)})
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request, resource string) {
	f.mu.Lock()
	objs, meta := f.selected(r, resource), metav1.ListMeta{ResourceVersion: strconv.Itoa(f.version)}
	kind, inJSON := runtime.ContentTypeProtobuf, f.json
	f.mu.Unlock()
	serializer := f.protobuf.Serializer
	if inJSON {
		info, _ := runtime.SerializerInfoForMediaType(f.codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
		kind, serializer = runtime.ContentTypeJSON, info.Serializer
	}
	var body []byte
	switch resource {
	case "services":
		l := &corev1.ServiceList{ListMeta: meta}
		for _, o := range objs {
			l.Items = append(l.Items, *o.(*corev1.Service))
		}
		body = f.encodeWith(serializer, l, corev1.SchemeGroupVersion)
	case "nodes":
		l := &corev1.NodeList{ListMeta: meta}
		for _, o := range objs {
			l.Items = append(l.Items, *o.(*corev1.Node))
		}
		body = f.encodeWith(serializer, l, corev1.SchemeGroupVersion)
	case "pods":
		l := &corev1.PodList{ListMeta: meta}
		for _, o := range objs {
			l.Items = append(l.Items, *o.(*corev1.Pod))
		}
		body = f.encodeWith(serializer, l, corev1.SchemeGroupVersion)
	case "networkpolicies":
		l := &metav1.PartialObjectMetadataList{ListMeta: meta}
		for _, o := range objs {
			l.Items = append(l.Items, *o.(*metav1.PartialObjectMetadata))
		}
		body = f.encodeWith(serializer, l, metav1.SchemeGroupVersion)
	case "endpointslices":
		l := &discoveryv1.EndpointSliceList{ListMeta: meta}
		for _, o := range objs {
			l.Items = append(l.Items, *o.(*discoveryv1.EndpointSlice))
		}
		body = f.encodeWith(serializer, l, discoveryv1.SchemeGroupVersion)
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body)
}

// watch streams until the client goes or cut is called.
func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, resource string) {
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	w.WriteHeader(http.StatusOK)
	f.mu.Lock()
	drop := f.drop
	var events []change
	if q.Get("sendInitialEvents") == "true" {
		if q.Get("resourceVersionMatch") != "NotOlderThan" || q.Get("allowWatchBookmarks") != "true" {
			f.t.Errorf("invalid streaming list: %s", r.URL.RawQuery)
		}
		for _, o := range f.selected(r, resource) {
			events = append(events, change{resource: resource, event: "ADDED", object: o})
		}
		from = f.version
		events = append(events, change{resource: resource, event: "BOOKMARK", object: bookmark(resource, from)})
	} else if from < f.oldest {
		events = append(events, change{resource: resource, event: "ERROR", object: statusObject(410)})
	}
	f.mu.Unlock()
	enc := streaming.NewEncoder(f.protobuf.StreamSerializer.Framer.NewFrameWriter(w),
		f.codecs.WithoutConversion().EncoderForVersion(f.protobuf.StreamSerializer.Serializer, corev1.SchemeGroupVersion))
	for {
		for _, e := range events {
			if !f.send(enc, e) || e.event == "ERROR" {
				return
			}
		}
		_ = http.NewResponseController(w).Flush()
		events, from = nil, f.await(r.Context(), drop, from)
		if from < 0 {
			return
		}
		f.mu.Lock()
		for _, c := range f.log {
			if c.version > from && c.resource == resource && f.matches(r, c.object) {
				events = append(events, c)
			}
		}
		from = f.version
		f.mu.Unlock()
	}
}

// await returns from when there are later versions, and -1 at the end.
func (f *fakeAPI) await(ctx context.Context, drop <-chan struct{}, from int) int {
	f.mu.Lock()
	wake, newer := f.wake, f.version > from
	f.mu.Unlock()
	if newer {
		wake = make(chan struct{})
		close(wake)
	}
	select {
	case <-drop:
		return -1
	case <-ctx.Done():
		return -1
	case <-wake:
		return from
	}
}

func (f *fakeAPI) send(enc streaming.Encoder, c change) bool {
	gv := corev1.SchemeGroupVersion
	switch {
	case c.event == "ERROR":
	case c.resource == "endpointslices":
		gv = discoveryv1.SchemeGroupVersion
	case c.resource == "networkpolicies":
		gv = metav1.SchemeGroupVersion
	}
	return enc.Encode(&metav1.WatchEvent{
		Type: c.event, Object: runtime.RawExtension{Raw: f.encode(c.object, gv)},
	}) == nil
}
