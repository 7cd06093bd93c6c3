// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/metrics"
	"github.com/svcscope/svcscope/pkg/service"
)

// maxReports bounds the reports that are encoded and sent at the same time; a
// request above it is answered with 503, as a scrape is.
const maxReports = 8

// newPages serves /metrics, /api/v1 and the page that links to them.
func newPages(s *sampler) (http.Handler, error) {
	mux := http.NewServeMux()
	registry := metrics.NewRegistry(s.latest.Load, metrics.Config{Endpoints: s.cfg.Endpoints, Policies: s.cfg.Policies, Runtime: true, Reads: s.reads, Programming: s.programming.delays})
	mux.Handle("GET /metrics", metrics.Handler(registry))
	links := []web.LandingLinks{{Address: "/metrics", Text: "Metrics", Description: "for Prometheus"}}
	if s.cfg.API != APINever {
		places := make(chan struct{}, maxReports)
		for _, p := range []struct {
			path, text string
			report     func(*correlate.Snapshot) any
		}{
			{"/api/v1/services", "Services", func(s *correlate.Snapshot) any { return correlate.NewServicesReport(s) }},
			{"/api/v1/drift", "Drift", func(s *correlate.Snapshot) any { return correlate.NewDriftReport(s) }},
			{"/api/v1/conntrack", "Connection tracking", func(s *correlate.Snapshot) any { return correlate.NewConntrackReport(s) }},
		} {
			mux.Handle("GET "+p.path, guard(s.cfg.API, bound(places, report(s, p.report))))
			links = append(links, web.LandingLinks{Address: p.path, Text: p.text, Description: "JSON"})
		}
		mux.Handle("GET /api/v1/history", guard(s.cfg.API, bound(places, ruleHistory(s))))
		mux.Handle("GET /api/v1/drops", guard(s.cfg.API, drops(s, places, make(chan struct{}, maxFollowers))))
		links = append(links, web.LandingLinks{Address: "/api/v1/drops", Text: "Drops", Description: "JSON; ?follow=true: a line for each, as they come"})
	}
	page, err := web.NewLandingPage(web.LandingConfig{
		Name: "svcscope", Description: "What this node's kernel does with Services", Links: links, Profiling: "false",
	})
	if err != nil {
		return nil, fmt.Errorf("make landing page: %w", err)
	}
	mux.Handle("GET /{$}", page)
	return mux, nil
}

// guard lets only clients of the exposure through.
func guard(exposure APIExposure, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if exposure == APILoopback {
			if why := foreign(r); why != "" {
				http.Error(w, "/api is served to this node alone (--web.api=loopback): "+why, http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// foreign is why a request may come from elsewhere than this node; empty: it
// does not. The connection's address decides. What headers say can only speak
// against a request: a proxy on this node may have taken it from anyone, and a
// browser on this node may have been led here by another site, whose name then
// stands in Host though it resolves to this address (DNS rebinding).
func foreign(r *http.Request) string {
	if !loopback(r.RemoteAddr) {
		return "the request comes from another address"
	}
	for _, header := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"} {
		if len(r.Header.Values(header)) > 0 {
			return "the request comes through a proxy (" + header + ")"
		}
	}
	if !literalHost(r.Host) {
		return "the host asked for is neither localhost nor an IP address"
	}
	return ""
}

func loopback(remote string) bool {
	a, err := netip.ParseAddrPort(remote)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// literalHost reports whether a Host header has localhost or an IP address,
// with or without a port. HTTP/1.0 may have none.
func literalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "" || strings.EqualFold(host, "localhost")
}

// bound lets as many requests at a time through as there are places. It stands
// behind guard: whoever may not read takes no place.
func bound(places chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("%d requests are being answered; try again later", cap(places)), http.StatusServiceUnavailable)
		}
	})
}

// ruleHistory serves the last changes of the rules of one Service, or of all.
func ruleHistory(s *sampler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := service.Name{Namespace: r.URL.Query().Get("namespace"), Name: r.URL.Query().Get("name")}
		if (name.Namespace == "") != (name.Name == "") {
			http.Error(w, "want a Service: ?namespace=NAMESPACE&name=NAME, or neither for all", http.StatusBadRequest)
			return
		}
		report(s, func(snapshot *correlate.Snapshot) any {
			return correlate.NewHistoryReport(snapshot, name, func(p service.PortName) []correlate.RuleChange {
				return s.history.of(kubeproxy.Hash(p))
			})
		}).ServeHTTP(w, r)
	})
}

// report serves what is made of the newest snapshot.
func report(s *sampler, of func(*correlate.Snapshot) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		snapshot := s.latest.Load()
		if snapshot == nil {
			http.Error(w, "the first reading is not complete", http.StatusServiceUnavailable)
			return
		}
		body, err := json.Marshal(of(snapshot))
		if err != nil {
			http.Error(w, "encode report: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The client's going away is not our error.
		_, _ = w.Write(append(body, '\n'))
	})
}
