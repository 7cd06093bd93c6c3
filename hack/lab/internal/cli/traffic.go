// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/hack/lab/internal/instance"
	"github.com/svcscope/svcscope/hack/lab/internal/traffic"
)

func serveCommand() *cobra.Command {
	s := traffic.Server{}
	cmd := &cobra.Command{
		Use: "serve", Short: "Answer HTTP and UDP requests, as the pods do", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Listen(); err != nil {
				return err
			}
			return s.Serve(cmd.Context())
		},
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	f := cmd.Flags()
	f.StringVar(&s.Name, "name-in-answer", host, "what to answer")
	f.StringVar(&s.Host, "host", "", "address to listen on; empty means all")
	f.IntVar(&s.HTTPPort, "http-port", traffic.HTTPPort, "TCP port")
	f.IntVar(&s.UDPPort, "udp-port", traffic.UDPPort, "UDP port")
	return cmd
}

type loadOptions struct {
	load             traffic.Load
	name, from, to   string
	output           string
	sources          []string
	requireSucceeded bool
	untilStopped     bool
}

func loadCommand() *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load --to IP:PORT",
		Short: "Open an exact number of new connections and say what became of them",
		Long: "Each connection comes from a source port of its own that was not used towards the same\n" +
			"destination for longer than connection tracking remembers it. None is tried twice.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Whoever runs it in a namespace by `lab exec` means that one.
			if !inside() {
				return relay(o.name, o.from)
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	nameFlag(cmd, &o.name)
	f.StringVar(&o.from, "from", "client", "namespace to connect from")
	f.StringVar(&o.to, "to", "", "destination, IP:PORT or [IPV6]:PORT")
	f.StringVar(&o.load.Proto, "proto", "tcp", "tcp (an HTTP request each) or udp (a datagram each)")
	f.IntVarP(&o.load.Connections, "connections", "n", 1, "number of connections")
	f.IntVarP(&o.load.Concurrency, "concurrency", "c", 64, "connections open at a time")
	f.Float64Var(&o.load.Rate, "rate", 0, "connections started a second; 0 means no limit")
	f.DurationVar(&o.load.Timeout, "timeout", 5*time.Second, "for one connection")
	f.StringSliceVar(&o.sources, "source-ip", nil, "addresses to connect from; the later ones when the ports of the earlier ones are used up")
	f.BoolVar(&o.requireSucceeded, "require-success", false, "exit 1 unless all succeed")
	f.BoolVar(&o.untilStopped, "until-stopped", false, "Ctrl-C ends the load early and says what became of the connections started till then")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func (o *loadOptions) run(ctx context.Context, w io.Writer) error {
	to, err := netip.ParseAddrPort(o.to)
	if err != nil {
		return fmt.Errorf("--to %q: want IP:PORT or [IPV6]:PORT", o.to)
	}
	o.load.To = to
	if o.load.Sources, err = o.sourceAddrs(to); err != nil {
		return err
	}
	o.load.Ports = traffic.Ports{Dir: filepath.Join(instance.RunDir, "ports", os.Getenv("LAB_WHERE")), Now: time.Now}
	if o.untilStopped {
		o.load.Stop, ctx = ctx.Done(), context.WithoutCancel(ctx)
	}
	r, err := o.load.Run(ctx)
	if err != nil {
		return err
	}
	if o.output == "json" {
		err = writeJSON(w, r)
	} else {
		loadText(w, r)
	}
	if err == nil && o.requireSucceeded && r.Succeeded != r.Connections {
		return exitStatus(1)
	}
	return err
}

// sourceAddrs returns the addresses asked for, or the one that the kernel
// chooses for the destination; the client's others follow it.
func (o *loadOptions) sourceAddrs(to netip.AddrPort) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range o.sources {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Is4() != to.Addr().Is4() {
			return nil, fmt.Errorf("--source-ip %q: want an address of the family of %s", s, to.Addr())
		}
		out = append(out, a)
	}
	if len(out) > 0 {
		return out, nil
	}
	// Connecting a datagram socket sends nothing; it asks for the route.
	c, err := net.Dial("udp", to.String())
	if err != nil {
		return nil, fmt.Errorf("find the source address for %s: %w", to, err)
	}
	defer c.Close()
	first := netip.MustParseAddrPort(c.LocalAddr().String()).Addr()
	out = append(out, first)
	if os.Getenv("LAB_WHERE") != "client" {
		return out, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Contains(first) && p.Addr() != first && !p.Addr().IsLoopback() {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}

func loadText(w io.Writer, r *traffic.Result) {
	fmt.Fprintf(w, "%d %s connections to %s in %.2f s: %d succeeded, %d refused, %d timed out, %d failed\n",
		r.Connections, r.Proto, r.To, r.Seconds, r.Succeeded, r.Refused, r.TimedOut, r.Failed)
	for _, m := range []struct {
		what   string
		counts map[string]int
	}{{"answered by", r.Answered}, {"error", r.Errors}} {
		for _, k := range slices.Sorted(maps.Keys(m.counts)) {
			fmt.Fprintf(w, "  %s %s: %d\n", m.what, k, m.counts[k])
		}
	}
}
