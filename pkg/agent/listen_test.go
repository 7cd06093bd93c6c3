// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

// webSampler is an agent with one Service, and a web configuration file unless
// that is empty. It listens where the system finds a port.
func webSampler(t *testing.T, file string, l *logs) *sampler {
	t.Helper()
	s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "1", "0")}}}, nil, l)
	s.cfg.ListenAddresses, s.cfg.HealthAddress, s.cfg.WebConfigFile = []string{"127.0.0.1:0"}, "127.0.0.1:0", file
	return s
}

// startWeb serves until the test ends and returns the addresses, that of
// health last. The first sampling is complete.
func startWeb(t *testing.T, s *sampler) []string {
	t.Helper()
	s.pass(t.Context())
	servers, err := listen(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, len(servers))
	var addresses []string
	for _, srv := range servers {
		addresses = append(addresses, srv.listener.Addr().String())
		go func() { ended <- srv.run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range servers {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return addresses
}

func TestSlowClientsAreLetGo(t *testing.T) {
	servers, err := listen(t.Context(), webSampler(t, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range servers {
		if srv.http.WriteTimeout <= 0 || srv.http.ReadHeaderTimeout <= 0 || srv.http.IdleTimeout <= 0 {
			t.Errorf("%s: no limit to the time that a client may take", srv.listener.Addr())
		}
		srv.listener.Close()
	}
}

func TestPortTakenIsOneClearError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	_, port, _ := net.SplitHostPort(taken)
	for setting, set := range map[string]func(*Config){
		"--web.listen-address (Helm: service.port)": func(c *Config) { c.ListenAddresses = []string{"127.0.0.1:0", taken} },
		"--web.health-address (Helm: healthPort)":   func(c *Config) { c.HealthAddress = taken },
	} {
		s := webSampler(t, "", nil)
		set(&s.cfg)
		want := "listen on " + taken + ": port " + port + " is in use on this node; choose another with " + setting
		if err := run(t.Context(), s); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestAddressesThatCannotBeListenedOn is about those that the chart's
// expansion of the host's address may give.
func TestAddressesThatCannotBeListenedOn(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.DropCapabilities(t, unix.CAP_NET_ADMIN)
		tests := []struct{ address, want string }{
			{
				"[192.0.2.1]:10988",
				"listen on [192.0.2.1]:10988: this node has no address 192.0.2.1 (now); give one that it has with --web.listen-address",
			},
			{
				"[2001:db8::1]:10988",
				"listen on [2001:db8::1]:10988: this node has no address 2001:db8::1 (now); give one that it has with --web.listen-address",
			},
			{
				"127.0.0.1:443",
				"listen on 127.0.0.1:443: port 443 is a privileged one; choose one from 1024 on with --web.listen-address (Helm: service.port)",
			},
			{
				"127.0.0.1:99999",
				"listen on 127.0.0.1:99999: address 99999: invalid port; see --web.listen-address (Helm: service.port)",
			},
			{
				"[$(HOST_IP)]:10988",
				"listen on [$(HOST_IP)]:10988: lookup $(HOST_IP): no such host; see --web.listen-address (Helm: service.port)",
			},
		}
		for _, tt := range tests {
			s := webSampler(t, "", nil)
			s.cfg.ListenAddresses = []string{tt.address}
			if err := run(t.Context(), s); err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		}
	})
}

// TestBracketsAroundAnyAddress listens on the node's addresses as the chart
// writes them, which does not know the family.
func TestBracketsAroundAnyAddress(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) {
		kerneltest.Exec(t, "", "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
		kerneltest.Exec(t, "", "ip", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
		l := &logs{}
		s := webSampler(t, "", l)
		s.cfg.ListenAddresses = []string{"[192.0.2.1]:10988", "[2001:db8::1]:10988", "127.0.0.1:10988"}
		s.cfg.HealthAddress = "127.0.0.1:10989"
		if err := s.cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		startWeb(t, s)
		for _, address := range []string{"192.0.2.1:10988", "[2001:db8::1]:10988", "127.0.0.1:10988"} {
			if code, body := text(t, "http://"+address+"/metrics"); code != http.StatusOK || !strings.Contains(body, "svcscope_") {
				t.Errorf("%s: %d %.80s", address, code, body)
			}
			if l.count("address="+address) == 0 {
				t.Errorf("the log does not say that it listens on %s:\n%s", address, l.b.String())
			}
		}
		text(t, "http://127.0.0.1:10989/healthz") // it logs before it serves
		if l.count(`address=127.0.0.1:10989 serves="/healthz and /readyz"`) != 1 {
			t.Errorf("the log does not say where health is:\n%s", l.b.String())
		}
	})
}
