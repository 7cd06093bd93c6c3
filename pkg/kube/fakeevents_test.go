// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// fakeEvents are the Events of a fakeAPI, which it has with its mutex.
type fakeEvents struct {
	names []string // in the order in which they were made
	all   map[string]*corev1.Event
	asked int
	made  int // for their names
}

// written returns the Events in the order in which they were made.
func (f *fakeAPI) written() []corev1.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []corev1.Event
	for _, n := range f.events.names {
		all = append(all, *f.events.all[n].DeepCopy())
	}
	return all
}

// writes returns how many requests there were to write Events.
func (f *fakeAPI) writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events.asked
}

// expireEvents forgets them, as the API does after an hour.
func (f *fakeAPI) expireEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events.names, f.events.all = nil, nil
}

// write makes and patches Events, and refuses all else that is no reading.
func (f *fakeAPI) write(w http.ResponseWriter, r *http.Request) {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/events")
	name = strings.TrimPrefix(name, "/")
	body, err := io.ReadAll(r.Body)
	if !ok || err != nil {
		f.t.Errorf("unexpected request %s %s: %v", r.Method, r.URL, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events.asked++
	status, event := f.fail["events"], (*corev1.Event)(nil)
	switch {
	case status != 0:
	case r.Method == http.MethodPost && name == "":
		event, status = f.create(namespace, body)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.MergePatchType):
		event, status = f.patch(name, body)
	default:
		f.t.Errorf("unexpected request %s %s", r.Method, r.URL)
	}
	if status != 0 {
		f.refuse(w, status)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	_, _ = w.Write(f.encode(event, corev1.SchemeGroupVersion))
}

// create needs mu.
func (f *fakeAPI) create(namespace string, body []byte) (*corev1.Event, int) {
	o, _, err := f.codecs.UniversalDeserializer().Decode(body, nil, nil)
	event, ok := o.(*corev1.Event)
	if !ok || event.Namespace != namespace || event.InvolvedObject.Namespace != namespace {
		f.t.Errorf("an Event in %s: %+v, %v", namespace, o, err)
		return nil, http.StatusUnprocessableEntity
	}
	if f.events.all == nil {
		f.events.all = make(map[string]*corev1.Event)
	}
	if event.Name == "" {
		f.events.made++
		event.Name = fmt.Sprintf("%s%d", event.GenerateName, f.events.made)
	}
	f.events.all[event.Name] = event
	f.events.names = append(f.events.names, event.Name)
	return event, 0
}

// patch needs mu.
func (f *fakeAPI) patch(name string, body []byte) (*corev1.Event, int) {
	event := f.events.all[name]
	if event == nil {
		return nil, http.StatusNotFound
	}
	if err := json.Unmarshal(body, event); err != nil { // which merges
		f.t.Errorf("patch %s: %v", name, err)
	}
	return event, 0
}

// wantsMetadata checks that of policies no more is asked for.
func (f *fakeAPI) wantsMetadata(r *http.Request, resource string) {
	kind := "PartialObjectMetadataList;"
	if r.URL.Query().Get("watch") == "true" {
		kind = "PartialObjectMetadata;"
	}
	for accept := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		want := resource == "networkpolicies"
		if got := strings.Contains(accept, ";as="+kind+"g="+metav1.GroupName+";v=v1"); got != want {
			f.t.Errorf("%s accepts %q", r.URL, accept)
		}
	}
}

// nodeOf is the node that a pod runs on.
func nodeOf(o runtime.Object) string {
	if p, ok := o.(*corev1.Pod); ok {
		return p.Spec.NodeName
	}
	return ""
}
