// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sys/unix"
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
	if file := s.cfg.WebConfigFile; file != "" {
		if err := web.Validate(file); err != nil {
			// YAML's complaints have a line each.
			return nil, fmt.Errorf("read %s (--web.config.file): %s", file, strings.Join(strings.Fields(err.Error()), " "))
		}
	}
	pages, err := newPages(s)
	if err != nil {
		return servers, err
	}
	systemd := false
	for _, address := range s.cfg.ListenAddresses {
		srv, err := newServer(ctx, address, pages, s.log)
		if err != nil {
			return servers, listenError(address, err, "--web.listen-address (Helm: service.port)")
		}
		srv.flags = &web.FlagConfig{
			WebListenAddresses: &[]string{address}, WebSystemdSocket: &systemd, WebConfigFile: &s.cfg.WebConfigFile,
		}
		servers = append(servers, srv)
	}
	if address := s.cfg.HealthAddress; address != "" {
		srv, err := newServer(ctx, address, newHealth(s), s.log)
		if err != nil {
			return servers, listenError(address, err, "--web.health-address (Helm: healthPort)")
		}
		servers = append(servers, srv)
	}
	return servers, nil
}

// newServer listens on address for plain HTTP.
func newServer(ctx context.Context, address string, h http.Handler, log *slog.Logger) (*server, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &server{
		listener: l, log: log,
		http: &http.Server{
			Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
			// Whoever reads slowly holds one of the few scrapes at a time.
			WriteTimeout: time.Minute,
			// Requests that follow events end with the agent.
			BaseContext: func(net.Listener) context.Context { return ctx },
			ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}, nil
}

// listenError says what to change; setting is the flag and the chart's value.
func listenError(address string, err error, setting string) error {
	host, port, _ := net.SplitHostPort(address) // Validate has seen it
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("listen on %s: port %s is in use on this node; choose another with %s", address, port, setting)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		flag, _, _ := strings.Cut(setting, " ")
		return fmt.Errorf("listen on %s: this node has no address %s (now); give one that it has with %s", address, host, flag)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("listen on %s: port %s is a privileged one; choose one from 1024 on with %s", address, port, setting)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the rest of it is said here
	}
	return fmt.Errorf("listen on %s: %w; see %s", address, err, setting)
}

// run serves until ctx ends, and then lets requests in progress end.
func (s *server) run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() {
		if s.flags == nil {
			s.log.Info("Listening on", "address", s.listener.Addr().String(), "serves", "/healthz and /readyz")
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
