// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// patience is how long a condition may take on a busy machine.
const patience = 60 * time.Second

// svcscope is the path of the program under test, built from this tree.
var svcscope string

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	if len(os.Args) > 1 {
		if inside, ok := insideCommands()[os.Args[1]]; ok {
			if err := inside(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			code = 0
			return
		}
	}
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(dir)
	svcscope = filepath.Join(dir, "svcscope")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X github.com/prometheus/common/version.Version=0.0.0-e2e", "-o", svcscope, "./cmd/svcscope")
	build.Dir = filepath.Join("..", "..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build svcscope: %v: %s", err, out)
		return
	}
	code = m.Run()
}

// agent is svcscope agent on node1, as a container would run it: UID 0 and
// CAP_NET_ADMIN alone.
type agent struct {
	t   *testing.T
	lab *labtest.Lab
	*labtest.Process
}

func startAgent(t *testing.T, lab *labtest.Lab, flags ...string) *agent {
	t.Helper()
	args := append([]string{svcscope, "agent", "--node-name=node1", "--interval=1s", "--kube.start-jitter=0s"}, flags...)
	a := &agent{t: t, lab: lab, Process: lab.StartWith([]string{"--caps=net_admin"}, "node1", args...)}
	eventually(t, "the agent is ready", func() error {
		_, err := a.get("10989", "/readyz")
		return err
	})
	return a
}

// get fetches a page from the agent, from inside the node.
func (a *agent) get(port, path string) (string, error) {
	script := fmt.Sprintf(`exec 3<>/dev/tcp/127.0.0.1/%s && printf 'GET %s HTTP/1.0\r\n\r\n' >&3 && cat <&3`, port, path)
	out, err := a.lab.Command("exec", "node1", "--", "bash", "-c", script).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("get %s: %w: %s", path, err, out)
	}
	head, body, _ := strings.Cut(string(out), "\r\n\r\n")
	if status, _, _ := strings.Cut(head, "\r\n"); !strings.Contains(status, " 200 ") {
		return "", fmt.Errorf("get %s: %s: %s", path, status, body)
	}
	return body, nil
}

// metrics are samples by metric name, then by labels.
type metrics map[string][]sample

type sample struct {
	labels map[string]string
	value  float64
}

func (a *agent) metrics() metrics {
	a.t.Helper()
	text, err := a.get("10988", "/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	m, err := parseMetrics(text)
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

// parseMetrics reads the text format, for label values without escapes.
func parseMetrics(text string) (metrics, error) {
	m := metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("sample %q: %w", line, err)
		}
		name, labels, _ := strings.Cut(strings.TrimSuffix(line[:i], "}"), "{")
		s := sample{labels: map[string]string{}, value: value}
		for pair := range strings.SplitSeq(labels, `",`) {
			if k, v, ok := strings.Cut(pair, `="`); ok {
				s.labels[k] = strings.TrimSuffix(v, `"`)
			}
		}
		m[name] = append(m[name], s)
	}
	return m, nil
}

// sum adds the samples of a metric that have all of these labels; n is their
// number.
func (m metrics) sum(name string, labels map[string]string) (total float64, n int) {
	for _, s := range m[name] {
		if slices.ContainsFunc(slices.Collect(maps.Keys(labels)), func(k string) bool { return s.labels[k] != labels[k] }) {
			continue
		}
		total += s.value
		n++
	}
	return total, n
}

// eventually waits for a condition, which says what is still missing.
func eventually(t *testing.T, what string, cond func() error) {
	t.Helper()
	within(t, patience, what, cond)
}

// within waits for a condition that may take longer than most.
func within(t *testing.T, patience time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for this: %s: %v", patience, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// samplings waits until the agent has taken n further readings.
func (a *agent) samplings(n int) {
	a.t.Helper()
	seen := map[float64]bool{}
	eventually(a.t, "further readings", func() error {
		at, _ := a.metrics().sum("svcscope_snapshot_timestamp_seconds", nil)
		seen[at] = true
		if len(seen) <= n {
			return fmt.Errorf("%d of %d", len(seen)-1, n)
		}
		return nil
	})
}

// result adds a line to the record of a long run.
func result(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf("| %s | %s |\n", t.Name(), fmt.Sprintf(format, args...))
	t.Log(line)
	if path := os.Getenv("SVCSCOPE_RESULTS"); path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
}

// long reports whether the full numbers are wanted.
func long() bool { return os.Getenv("SVCSCOPE_LONG") == "1" }
