// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	base    string            // URL at which the test reaches it
	labels  map[string]string // of the target
	*labtest.Process
}

// scraping says what a Prometheus scrapes and with what rules. The zero value
// is the agent alone, without further labels.
type scraping struct {
	// port to listen on; 0 means 9090.
	port int
	// labels are added to the target.
	labels map[string]string
	// rules are files, loaded as they are.
	rules []string
	// args are further flags of Prometheus.
	args []string
}

func (s scraping) config() string {
	labels := []string{}
	for _, k := range []string{"cluster", "node", "namespace"} {
		if v, ok := s.labels[k]; ok {
			labels = append(labels, fmt.Sprintf("%s: %q", k, v))
		}
	}
	text := "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
	if len(s.rules) > 0 {
		text += fmt.Sprintf("rule_files: [%s]\n", strings.Join(s.rules, ", "))
	}
	text += fmt.Sprintf("scrape_configs:\n- job_name: svcscope\n  static_configs: [{targets: ['127.0.0.1:10988'], labels: {%s}}]\n", strings.Join(labels, ", "))
	return text
}

// startPrometheus returns when the agent has been scraped.
func startPrometheus(t *testing.T, lab *labtest.Lab, s scraping) *prometheus {
	t.Helper()
	path := tool(t, "prometheus")
	if s.port == 0 {
		s.port = 9090
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte(s.config()), 0o644); err != nil {
		t.Fatal(err)
	}
	// Before it scrapes it looks its host's name up, in vain for 15 s.
	argv := append([]string{
		"unshare", "--uts", "sh", "-c", `hostname localhost && exec "$@"`, "sh", path, "--config.file=" + config,
		"--storage.tsdb.path=" + filepath.Join(dir, "data"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", s.port), "--log.level=warn",
	}, s.args...)
	p := &prometheus{t: t, lab: lab, started: time.Now(), labels: s.labels, Process: lab.StartProcess("node1", argv...)}
	p.base = "http://" + lab.Forward(fmt.Sprintf("node1:%d", s.port))
	eventually(t, "Prometheus scrapes the agent", func() error {
		v, err := p.query(`up{job="svcscope"}`)
		if err == nil && (len(v) != 1 || v[0].value() != 1) {
			err = fmt.Errorf("up is %v; %s", v, p.Output())
		}
		return err
	})
	return p
}

// scraped waits until the agent was scraped n times, so that rates and
// recorded series are there.
func (p *prometheus) scraped(n int) {
	p.t.Helper()
	eventually(p.t, "Prometheus has scraped", func() error {
		v, err := p.query(`count_over_time(up{job="svcscope"}[10m])`)
		if err == nil && (len(v) != 1 || v[0].value() < float64(n)) {
			err = fmt.Errorf("%v, want %d times", v, n)
		}
		return err
	})
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

// isNumber reports whether any of its values is one.
func (s series) isNumber() bool {
	values := s.Values
	if s.Value[1] != nil {
		values = append(values, s.Value)
	}
	return slices.ContainsFunc(values, func(v [2]any) bool { return !math.IsNaN(number(v)) })
}

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

// query runs an instant query.
func (p *prometheus) query(expr string) ([]series, error) {
	var data struct{ Result []series }
	if err := p.api("query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, err
	}
	return data.Result, nil
}

// rangeQuery runs a query over the time since a start, a point each step.
func (p *prometheus) rangeQuery(expr string, start time.Time, step time.Duration) ([]series, error) {
	var data struct{ Result []series }
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	err := p.api("query_range", url.Values{
		"query": {expr}, "start": {seconds(start)}, "end": {seconds(time.Now())}, "step": {step.String()},
	}, &data)
	return data.Result, err
}

// labelValues returns the values of a label in the series that a selector
// matches, or in all.
func (p *prometheus) labelValues(label, selector string) ([]string, error) {
	params := url.Values{}
	if selector != "" {
		params.Set("match[]", selector)
	}
	var values []string
	err := p.api("label/"+label+"/values", params, &values)
	return values, err
}

// api calls a path below /api/v1. Warnings and notes are errors too.
func (p *prometheus) api(path string, params url.Values, data any) error {
	resp, err := http.Get(p.base + "/api/v1/" + path + "?" + params.Encode())
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error   string
		Warnings, Infos []string
		Data            json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("answer of Prometheus to %s: %w", path, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s %v: %s", path, params, answer.Error)
	}
	if notes := append(answer.Warnings, answer.Infos...); len(notes) > 0 {
		return fmt.Errorf("%s %v: Prometheus warns: %s", path, params, strings.Join(notes, "; "))
	}
	return json.Unmarshal(answer.Data, data)
}
