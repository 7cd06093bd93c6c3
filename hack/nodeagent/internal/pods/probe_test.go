// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestProbeThresholds(t *testing.T) {
	// What the server answers, one each look.
	answers := []int{200, 500, 500, 200, 302, 404, 404, 404}
	var n atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" || r.Header.Get("X-Test") != "1" {
			t.Errorf("the probe asks %s with %v", r.URL, r.Header)
		}
		i := int(n.Add(1)) - 1
		if i >= len(answers) {
			cancel()
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answers[i])
	}))
	defer s.Close()
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "health", ContainerPort: int32(number)}}}
	pr := &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: host, Path: "ready", Port: intstr.FromString("health"), Scheme: "HTTP", HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Test", Value: "1"}},
		}},
		PeriodSeconds: 1, TimeoutSeconds: 5, SuccessThreshold: 2, FailureThreshold: 2,
	}
	p := &pod{node: &Node{addresses: []string{"192.0.2.1"}}}
	var got []string
	looks{p, c, pr, time.Millisecond}.run(ctx, func(ok bool, why string) { got = append(got, fmt.Sprint(ok, " ", strings.HasSuffix(why, "404"))) })
	// 500 500 reach the threshold, 200 302 too, and 404 from the second on.
	want := []string{"false false", "true false", "false true", "false true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

func TestProbeErrors(t *testing.T) {
	p := &pod{node: &Node{addresses: []string{"127.0.0.1"}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := intstr.FromInt(l.Addr().(*net.TCPAddr).Port)
	tcp := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}}
	if err := p.try(t.Context(), nil, tcp); err != nil {
		t.Errorf("an open port: %v", err)
	}
	l.Close()
	if err := p.try(t.Context(), nil, tcp); err == nil {
		t.Error("a closed port is no failure")
	}
	named := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("x")}}}
	if err := p.try(t.Context(), &corev1.Container{}, named); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("a port without a number: %v", err)
	}
}

func TestLogLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &logFile{f: f}
	w := l.stream("stdout")
	long := strings.Repeat("x", maxLine+1)
	for _, s := range []string{"one\ntw", "o\n\n", long + "\n", "end"} {
		if _, err := io.WriteString(w, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		got = append(got, parts[1]+" "+parts[2]+" "+strconv.Itoa(len(parts[3])))
	}
	want := []string{"stdout F 3", "stdout F 3", "stdout F 0", "stdout P " + strconv.Itoa(maxLine), "stdout F 1", "stdout P 3"}
	if !slices.Equal(got, want) {
		t.Errorf("lines are %q, want %q", got, want)
	}
	if s := string(tail(path, 5)); s != "x\nend" {
		t.Errorf("the tail is %q, want %q", s, "x\nend")
	}
}
