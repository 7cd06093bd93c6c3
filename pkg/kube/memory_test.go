// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/svcscope/svcscope/pkg/service"
)

// heap is what is allocated and in use, in bytes.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// heapOf returns the bytes that n Services with so many endpoints each keep,
// tables, catalog and index together.
func heapOf(n, endpoints int) float64 {
	before := heap()
	ts := bigTables(n, endpoints)
	c := ts.catalog(&service.Catalog{})
	c.ByNodePort(1, service.TCP)
	used := float64(heap() - before)
	runtime.KeepAlive(ts)
	runtime.KeepAlive(c)
	return used
}

// TestHeapOfManyServices holds the memory of 10,000 Services with 30,000
// endpoints, tables, catalog and index together, below 13 MiB.
func TestHeapOfManyServices(t *testing.T) {
	used := heapOf(10000, 3) / (1 << 20)
	t.Logf("%.1f MiB", used)
	if used > 13 {
		t.Errorf("%.1f MiB, want at most 13", used)
	}
}

// BenchmarkMemory reports what one Service with one port and one slice keeps,
// and what one more endpoint of it keeps.
func BenchmarkMemory(b *testing.B) {
	const n = 10000
	for b.Loop() {
		few, many := heapOf(n, 3), heapOf(n, 13)
		endpoint := (many - few) / (10 * n)
		b.ReportMetric(endpoint, "B/endpoint")
		b.ReportMetric(few/n-3*endpoint, "B/service")
		b.ReportMetric(few/(1<<20), "MiB")
	}
}

// BenchmarkFirstList is the whole way of 10,000 Services with 30,000 endpoints
// from the API to a catalog, with the highest heap on it. The answers come
// from files, so that the server adds little.
func BenchmarkFirstList(b *testing.B) {
	for _, streaming := range []bool{true, false} {
		name := map[bool]string{true: "streamed", false: "plain"}[streaming]
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewServer(record(b, 10000, streaming))
			defer srv.Close()
			var peak, kept float64
			for b.Loop() {
				before := float64(heap())
				high := firstList(b, srv.URL)
				peak = max(peak, high.peak-before)
				kept = float64(heap()) - before
				high.stop()
			}
			b.ReportMetric(peak/(1<<20), "peak-MiB")
			b.ReportMetric(kept/(1<<20), "kept-MiB")
		})
	}
}

type listed struct {
	peak float64
	stop func()
}

// firstList follows the API at url until there is a catalog.
func firstList(b *testing.B, url string) listed {
	w, err := New(Config{REST: &rest.Config{Host: url}, NodeName: "node-1", settle: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	l := listed{stop: func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		runtime.KeepAlive(w)
	}}
	for !w.Synced() {
		select {
		case <-tick.C:
			metrics.Read(sample)
			l.peak = max(l.peak, float64(sample[0].Value.Uint64()))
		case <-b.Context().Done():
			b.Fatal("no catalog")
		}
	}
	return l
}

// record returns a server that answers as the fake API does, from files.
func record(b *testing.B, services int, streaming bool) http.Handler {
	f := newFakeAPI(b)
	f.put(apiNode("node-1"))
	for i := range services {
		ns, name := fmt.Sprintf("namespace-%d", i%50), fmt.Sprintf("service-%05d", i)
		s := apiService(ns, name, fmt.Sprintf("10.96.%d.%d", i>>8, i&255))
		s.ObjectMeta = fullMeta(s.ObjectMeta, i)
		e := bigSlice(ns, name, 3*i, 3)
		e.ObjectMeta = fullMeta(e.ObjectMeta, i)
		for j := range e.Endpoints {
			e.Endpoints[j].TargetRef = &corev1.ObjectReference{
				Kind: "Pod", Namespace: ns, Name: fmt.Sprintf("%s-5d5c8f7b9-%05d", name, j), UID: uid(i),
			}
		}
		f.put(s, e)
	}
	files := map[string]string{}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	query := "?"
	if streaming {
		query = "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	}
	for path, name := range fakePaths {
		if len(f.objects[name]) == 0 {
			continue // not followed here
		}
		r := httptest.NewRequestWithContext(ended, http.MethodGet, path+query, nil)
		r.Header.Set("Accept", protobufType)
		rec := httptest.NewRecorder()
		f.ServeHTTP(rec, r)
		files[path] = filepath.Join(b.TempDir(), name)
		if err := os.WriteFile(files[path], rec.Body.Bytes(), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	f.objects, f.log = nil, nil // they would count as heap in use
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", protobufType)
		switch {
		case q.Get("watch") != "true":
		case q.Get("sendInitialEvents") == "true" && !streaming:
			f.refuse(w, http.StatusUnprocessableEntity)
			return
		default:
			w.Header().Set("Content-Type", protobufType+";stream=watch")
		}
		if q.Get("watch") != "true" || streaming {
			file, err := os.Open(files[r.URL.Path])
			if err != nil {
				b.Error(err)
				return
			}
			defer func() { _ = file.Close() }()
			_, _ = io.Copy(w, file)
		}
		if q.Get("watch") == "true" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
}

func uid(i int) types.UID {
	return types.UID(fmt.Sprintf("3f8e0c1c-8f7b-4c7c-9d5a-%012x", i))
}

// fullMeta is the metadata of an object as a cluster has it.
func fullMeta(m metav1.ObjectMeta, i int) metav1.ObjectMeta {
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	for _, k := range []string{"name", "instance", "version", "component", "part-of", "managed-by"} {
		m.Labels["app.kubernetes.io/"+k] = fmt.Sprintf("%s-%d", k, i)
	}
	m.UID, m.ResourceVersion, m.Generation = uid(i), fmt.Sprint(1000000+i), 3
	m.CreationTimestamp = metav1.Unix(1700000000, 0)
	m.Annotations = map[string]string{
		"endpoints.kubernetes.io/last-change-trigger-time": "2024-01-01T00:00:00Z",
		"meta.helm.sh/release-name":                        m.Name,
	}
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: m.Name, UID: uid(i), Controller: new(true)}}
	m.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate,
		APIVersion: "discovery.k8s.io/v1", Time: &m.CreationTimestamp, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":{".":{},` +
			`"f:endpoints.kubernetes.io/last-change-trigger-time":{}},"f:generateName":{},"f:labels":{".":{},` +
			`"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},` +
			`"k:{\"uid\":\"3f8e0c1c-8f7b-4c7c-9d5a-000000000000\"}":{}}},"f:ports":{}}`),
	}}
	return m
}
