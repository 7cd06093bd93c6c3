// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func servicesSink() *sink[string] {
	return &sink[string]{
		kind:    servicesKind,
		object:  func() message { return &corev1.Service{} },
		convert: func(o runtime.Object) (string, bool) { n := nameOf(o).String(); return n, n != "a/left-out" },
	}
}

// answer is a list of Services as the API writes it.
func answer(t *testing.T, names ...string) []byte {
	t.Helper()
	l := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "123", Continue: "more"}}
	for _, n := range names {
		l.Items = append(l.Items, *apiService("a", n, "10.0.0.1"))
	}
	return newFakeAPI(t).encode(l, corev1.SchemeGroupVersion)
}

func TestReadList(t *testing.T) {
	for _, names := range [][]string{nil, {"web"}, {"web", "left-out", strings.Repeat("long", 50000)}} {
		list, err := readList(bytes.NewReader(answer(t, names...)), servicesSink().decode)
		if err != nil {
			t.Fatalf("%d Services: %v", len(names), err)
		}
		if list.ResourceVersion != "123" || list.Continue != "more" {
			t.Errorf("metadata %+v", list.ListMeta)
		}
		var got []string
		for _, o := range list.Items {
			c, ok := o.(converted[string])
			if !ok || c.keep == (c.value == "a/left-out") {
				t.Errorf("%T %+v", o, o)
			}
			got = append(got, strings.TrimPrefix(c.value, "a/"))
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestReadListSkipsUnknownFields(t *testing.T) {
	list := []byte{
		3<<3 | wireVarint, 0xff, 0x01,
		4<<3 | wire64, 1, 2, 3, 4, 5, 6, 7, 8,
		5<<3 | wire32, 1, 2, 3, 4,
		6<<3 | wireBytes, 2, 'x', 'y',
		listMetadata<<3 | wireBytes, 3, 2<<3 | wireBytes, 1, '7', // resourceVersion
	}
	in := append([]byte(protobufMagic), 1<<3|wireBytes, 1, 'k', 9<<3|wireVarint, 5, unknownRaw<<3|wireBytes, byte(len(list)))
	// What follows the list in the envelope is not of interest.
	in = append(append(in, list...), 3<<3|wireBytes, 0)
	got, err := readList(bytes.NewReader(in), servicesSink().decode)
	if err != nil || got.ResourceVersion != "7" || len(got.Items) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReadListOfDamagedBytes(t *testing.T) {
	whole := answer(t, "web", "dns")
	end := len(whole) - len("\x1a\x00\x22\x00") // the envelope's last two fields
	for n := range len(whole) {
		_, err := readList(bytes.NewReader(whole[:n]), servicesSink().decode)
		switch {
		case n < len(protobufMagic):
			if !errors.Is(err, errNotProtobuf) {
				t.Errorf("%d bytes: %v", n, err)
			}
		case n < end && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Errorf("%d of %d bytes: %v, want an unexpected end", n, len(whole), err)
		case n >= end && err != nil:
			t.Errorf("all of the list, %d of %d bytes: %v", n, len(whole), err)
		}
	}
	for i := range whole {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= flip
			_, _ = readList(bytes.NewReader(b), servicesSink().decode) // it ends, and does not panic
		}
	}
}

func TestReadListRefusesHugeObjects(t *testing.T) {
	in := append([]byte(protobufMagic), unknownRaw<<3|wireBytes, 0xff, 0xff, 0xff, 0xff, 0x7f)
	in = append(in, listItems<<3|wireBytes, 0xff, 0xff, 0xff, 0xff, 0x3f)
	if _, err := readList(bytes.NewReader(in), servicesSink().decode); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an object of 16 GiB: %v", err)
	}
}

// TestListInJSON: what stands before the API may not know protobuf.
func TestListInJSON(t *testing.T) {
	f := newFakeAPI(t)
	f.noStreaming, f.json = true, true
	fill(f)
	w := start(t, f, nil)
	until(t, w, "first list", says(w, webOnly))
}
