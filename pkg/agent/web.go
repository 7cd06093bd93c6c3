// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/metrics"
)

// stopWithin is how long requests in progress may take once the agent ends.
const stopWithin = 5 * time.Second

// server is one address that is served.
type server struct {
	listener net.Listener
	http     *http.Server
	flags    *web.FlagConfig // nil: plain HTTP, without authentication
	log      *slog.Logger
}

// listen opens all addresses before anything is served: an agent that cannot
// be reached should not begin.
func listen(ctx context.Context, s *sampler) (servers []*server, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, srv := range servers {
			err = errors.Join(err, srv.listener.Close())
		}
		servers = nil
	}()
	open := func(flag, address string, h http.Handler, flags *web.FlagConfig) error {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("listen on %s (%s): address already in use", address, flag)
		}
		if err != nil {
			return fmt.Errorf("listen on %s (%s): %w", address, flag, err)
		}
		servers = append(servers, &server{
			listener: l, flags: flags, log: s.log,
			http: &http.Server{
				Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
				ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
			},
		})
		return nil
	}
	if file := s.cfg.WebConfigFile; file != "" {
		if err := web.Validate(file); err != nil {
			return nil, fmt.Errorf("read %s (--web.config.file): %w", file, err)
		}
	}
	pages, err := newPages(s)
	if err != nil {
		return servers, err
	}
	systemd := false
	for _, address := range s.cfg.ListenAddresses {
		flags := &web.FlagConfig{
			WebListenAddresses: &[]string{address}, WebSystemdSocket: &systemd, WebConfigFile: &s.cfg.WebConfigFile,
		}
		if err := open("--web.listen-address", address, pages, flags); err != nil {
			return servers, err
		}
	}
	if s.cfg.HealthAddress != "" {
		if err := open("--web.health-address", s.cfg.HealthAddress, newHealth(s), nil); err != nil {
			return servers, err
		}
	}
	return servers, nil
}

// run serves until ctx ends, and then lets requests in progress end.
func (s *server) run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() {
		if s.flags == nil {
			failed <- s.http.Serve(s.listener)
			return
		}
		failed <- web.Serve(s.listener, s.http, s.flags, s.log)
	}()
	select {
	case err := <-failed:
		// web.Serve leaves the listener open when its file is wrong.
		_ = s.listener.Close()
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	err := s.http.Shutdown(stop)
	if err != nil {
		err = s.http.Close()
	}
	// Serve may not have begun, and then has not taken the listener over.
	_ = s.listener.Close()
	if e := <-failed; e != nil && !errors.Is(e, http.ErrServerClosed) && !errors.Is(e, net.ErrClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// newPages serves /metrics, /api/v1 and the page that links to them.
func newPages(s *sampler) (http.Handler, error) {
	mux := http.NewServeMux()
	registry := metrics.NewRegistry(s.latest.Load, metrics.Config{Endpoints: s.cfg.Endpoints, Runtime: true})
	mux.Handle("GET /metrics", metrics.Handler(registry))
	links := []web.LandingLinks{{Address: "/metrics", Text: "Metrics", Description: "for Prometheus"}}
	if s.cfg.API != APINever {
		mux.Handle("GET /api/v1/services", guard(s.cfg.API, services(s)))
		links = append(links, web.LandingLinks{Address: "/api/v1/services", Text: "Services", Description: "JSON"})
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
		if exposure == APILoopback && !loopback(r.RemoteAddr) {
			http.Error(w, "/api is served to this node alone (--web.api=loopback)", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopback(remote string) bool {
	a, err := netip.ParseAddrPort(remote)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

func services(s *sampler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		snapshot := s.latest.Load()
		if snapshot == nil {
			http.Error(w, "the first reading is not complete", http.StatusServiceUnavailable)
			return
		}
		body, err := json.Marshal(correlate.NewServicesReport(snapshot))
		if err != nil {
			http.Error(w, "encode report: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The client's going away is not our error.
		_, _ = w.Write(append(body, '\n'))
	})
}
