// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// scrape asks the handler in the given format.
func scrape(t *testing.T, r *Registry, accept string) (status int, contentType, body string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	Handler(r).ServeHTTP(w, req)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, w.Header().Get("Content-Type"), string(b)
}

func TestHandlerSpeaksBothFormats(t *testing.T) {
	tests := []struct {
		accept, contentType string
		created             bool
		end                 string
	}{
		{"text/plain;version=0.0.4", "text/plain; version=0.0.4", false, "\n"},
		{"application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0", true, "# EOF\n"},
	}
	for _, tt := range tests {
		t.Run(tt.accept, func(t *testing.T) {
			status, contentType, body := scrape(t, NewRegistry(richSnapshot, Config{}), tt.accept)
			if status != http.StatusOK || !strings.HasPrefix(contentType, tt.contentType) {
				t.Errorf("status %d, content type %q", status, contentType)
			}
			if got := strings.Contains(body, "svcscope_service_connections_created{"); got != tt.created {
				t.Errorf("created samples: %v, want %v", got, tt.created)
			}
			if !strings.HasSuffix(body, tt.end) {
				t.Errorf("the body does not end with %q", tt.end)
			}
		})
	}
}

// scrapeProtobuf asks in protobuf and returns the families by name.
func scrapeProtobuf(t *testing.T, r *Registry) map[string]*dto.MetricFamily {
	t.Helper()
	_, contentType, body := scrape(t, r, string(protobuf()))
	if !strings.HasPrefix(contentType, "application/vnd.google.protobuf") {
		t.Fatalf("content type %q", contentType)
	}
	return decodeProtobuf(t, strings.NewReader(body))
}

func decodeProtobuf(t *testing.T, body io.Reader) map[string]*dto.MetricFamily {
	t.Helper()
	dec := expfmt.NewDecoder(body, protobuf())
	families := make(map[string]*dto.MetricFamily)
	for {
		f := &dto.MetricFamily{}
		if err := dec.Decode(f); errors.Is(err, io.EOF) {
			return families
		} else if err != nil {
			t.Fatal(err)
		}
		families[f.GetName()] = f
	}
}

func TestProtobufCarriesCreatedTimesWithoutExtraSeries(t *testing.T) {
	created := 0
	for name, f := range scrapeProtobuf(t, NewRegistry(richSnapshot, Config{})) {
		if strings.HasSuffix(name, "_created") {
			t.Errorf("extra series %s", name)
		}
		if name != "svcscope_service_connections_total" {
			continue
		}
		for _, m := range f.Metric {
			if m.GetCounter().GetCreatedTimestamp() == nil {
				t.Errorf("no created time: %v", m)
			}
			created++
		}
	}
	if created != 12 {
		t.Errorf("%d connections counters, want 12", created)
	}
}

func TestServedTextIsTheCatalogues(t *testing.T) {
	_, _, body := scrape(t, NewRegistry(richSnapshot, Config{Endpoints: true, Runtime: true}), "text/plain;version=0.0.4")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var families []*dto.MetricFamily
	for _, f := range parsed {
		families = append(families, f)
	}
	if err := Check(families); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"svcscope_build_info", "go_goroutines", "process_open_fds", "promhttp_metric_handler_errors_total"} {
		if parsed[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestRegistryEqualsThePedanticOne(t *testing.T) {
	cfg := Config{Endpoints: true}
	got := lines(t, gather(t, NewRegistry(richSnapshot, cfg)), Prefix)
	got = slices.DeleteFunc(got, func(l string) bool { return strings.HasPrefix(l, "svcscope_build_info") })
	want := lines(t, gather(t, pedantic(t, richSnapshot(), cfg)), Prefix)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestRegistryIsSorted(t *testing.T) {
	families := gather(t, NewRegistry(richSnapshot, Config{Runtime: true}))
	if !slices.IsSortedFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) }) {
		t.Error("families are not sorted by name")
	}
}

func TestRuntimeMetricsHaveASwitch(t *testing.T) {
	for _, runtime := range []bool{false, true} {
		got := lines(t, gather(t, NewRegistry(richSnapshot, Config{Runtime: runtime})), "go_")
		if (len(got) > 0) != runtime {
			t.Errorf("Runtime %v: %d go_ samples", runtime, len(got))
		}
	}
}

// broken is a collector whose every collection fails.
type broken struct{}

func (broken) Describe(ch chan<- *prometheus.Desc) {
	ch <- prometheus.NewDesc("broken", "Broken", nil, nil)
}

func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "Broken", nil, nil), errors.New("broken"))
}

func TestErrorsAreCountedAndTheRestIsServed(t *testing.T) {
	r := NewRegistry(richSnapshot, Config{})
	r.process.MustRegister(broken{})
	h := Handler(r)
	var body bytes.Buffer
	for range 2 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK {
			t.Errorf("status %d", w.Code)
		}
		body = *w.Body
	}
	for _, want := range []string{
		"svcscope_kube_synced 1\n",
		`promhttp_metric_handler_errors_total{cause="gathering"} 1` + "\n",
	} {
		if !strings.Contains(body.String(), want) {
			t.Errorf("no line %q", want)
		}
	}
}

func TestScrapesAboveTheBoundAreRefused(t *testing.T) {
	release := make(chan struct{})
	h := Handler(NewRegistry(func() *correlate.Snapshot { <-release; return richSnapshot() }, Config{}))
	codes := make(chan int)
	for range maxScrapes + 1 {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
			codes <- w.Code
		}()
	}
	if code := <-codes; code != http.StatusServiceUnavailable { // the others wait for the snapshot
		t.Errorf("status %d, want %d", code, http.StatusServiceUnavailable)
	}
	close(release)
	for range maxScrapes {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("status %d, want %d", code, http.StatusOK)
		}
	}
}
