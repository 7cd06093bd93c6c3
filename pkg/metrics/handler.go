// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// maxScrapes bounds the scrapes that are formatted at the same time; a scrape
// above it is answered with 503.
const maxScrapes = 8

// handler serves a registry.
type handler struct {
	registry *Registry
	errors   *prometheus.CounterVec
	places   chan struct{}
	buffers  sync.Pool // of *[]byte
}

// Handler serves the registry in the text format and, where asked for,
// OpenMetrics with created samples or protobuf, compressed where that is
// accepted; with the parameter name[], only the families of these names.
// Scrapes of one snapshot share its samples. Errors are counted in
// promhttp_metric_handler_errors_total, the name that client_golang's handler
// gives it, and what could be gathered is served. Call it once for each
// registry.
func Handler(r *Registry) http.Handler {
	h := &handler{
		registry: r,
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "promhttp_metric_handler_errors_total",
			Help: "Total number of internal errors encountered by the metrics handler.",
		}, []string{"cause"}),
		places:  make(chan struct{}, maxScrapes),
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, pageBuffer+4096); return &b }},
	}
	h.errors.WithLabelValues("gathering")
	h.errors.WithLabelValues("encoding")
	r.process.MustRegister(h.errors)
	return compress(h)
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		http.Error(w, fmt.Sprintf("%d scrapes are being answered; try again later", maxScrapes), http.StatusServiceUnavailable)
		return
	}
	families, err := h.registry.Gather()
	if err != nil {
		h.errors.WithLabelValues("gathering").Inc()
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	w.Header().Add("Vary", "Accept")
	w.Header().Set("Content-Type", string(format))
	names := r.URL.Query()["name[]"]
	buf := h.buffers.Get().(*[]byte)
	p := newPage(w, format, *buf)
	for _, f := range families {
		if len(names) > 0 && !slices.Contains(names, f.GetName()) {
			continue
		}
		if err = p.encode(f); err != nil {
			break
		}
	}
	if err == nil {
		err = p.close()
	}
	if err != nil {
		h.errors.WithLabelValues("encoding").Inc()
	}
	*buf = p.buf
	h.buffers.Put(buf)
}
