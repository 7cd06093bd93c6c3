// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/svcscope/svcscope/hack/lab/internal/binaries"
	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// prometheus is a stock Prometheus on node1 that scrapes the agent.
type prometheus struct {
	t       *testing.T
	lab     *labtest.Lab
	started time.Time
	*labtest.Process
}

func startPrometheus(t *testing.T, lab *labtest.Lab) *prometheus {
	t.Helper()
	path := tool(t, "prometheus")
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: svcscope
  static_configs: [{targets: ['127.0.0.1:10988']}]
`), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &prometheus{t: t, lab: lab, started: time.Now(), Process: lab.StartProcess("node1", path, "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:9090", "--log.level=warn")}
	eventually(t, "Prometheus scrapes the agent", func() error {
		v, err := p.query(`up{job="svcscope"}`)
		if err == nil && (len(v) != 1 || v[0].value() != 1) {
			err = fmt.Errorf("up is %v; %s", v, p.Output())
		}
		return err
	})
	return p
}

// tool returns the path of one of the lab's programs.
func tool(t *testing.T, name string) string {
	t.Helper()
	paths, err := binaries.Find(name)
	if errors.Is(err, binaries.ErrMissing) && os.Getenv("SVCSCOPE_REQUIRE_LAB") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return paths[name]
}

// series is one element of Prometheus' answer: a vector's or a matrix's.
type series struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

func (s series) value() float64 { return number(s.Value) }

func number(pair [2]any) float64 {
	text, _ := pair[1].(string)
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return -1
	}
	return f
}

// grown adds what a counter grew by over its raw samples; a fall is a restart
// from 0.
func (s series) grown() float64 {
	var total float64
	for i := 1; i < len(s.Values); i++ {
		last, now := number(s.Values[i-1]), number(s.Values[i])
		if now < last {
			last = 0
		}
		total += now - last
	}
	return total
}

func (p *prometheus) query(expr string) ([]series, error) {
	// The path is an argument of printf, not its format: it is full of "%".
	script := `exec 3<>/dev/tcp/127.0.0.1/9090 && printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3 && cat <&3`
	path := "/api/v1/query?query=" + url.QueryEscape(expr)
	out, err := p.lab.Command("exec", "node1", "--", "bash", "-c", script, "get", path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("query Prometheus: %w: %s", err, out)
	}
	_, body, _ := bytes.Cut(out, []byte("\r\n\r\n"))
	var answer struct {
		Status string
		Error  string
		Data   struct{ Result []series }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer of Prometheus: %w: %s", err, body)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("query %s: %s", expr, answer.Error)
	}
	return answer.Data.Result, nil
}
