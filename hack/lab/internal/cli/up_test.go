// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestUpRefusesWhatDoesNotFit(t *testing.T) {
	for name, tc := range map[string]struct{ args, want string }{
		"unknown proxy mode":       {"--proxy-mode ipvs", "iptables nftables"},
		"unknown backend":          {"--iptables nftables", "nft legacy"},
		"two nodes":                {"--nodes 2", "one node"},
		"too many pods":            {"--pods 1000", "0 to 200"},
		"rules with control plane": {"--rules x", "--control-plane none"},
		"scene without":            {"--control-plane none --scene demo", "--rules"},
		"too many Services":        {"--services 70000", "0 to 60000"},
		"Services without plane":   {"--services 5 --control-plane none", "real"},
		"too few pods":             {"--scene demo --pods 1", "3 pods"},
		"rules that are not there": {"--control-plane none --rules /nonexistent", "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := root()
			cmd.SetArgs(append([]string{"up", "--name", "never"}, strings.Fields(tc.args)...))
			err := cmd.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("lab up %s: %v, want %q", tc.args, err, tc.want)
			}
		})
	}
}

func TestRulesOfTheOtherFamilyAreFound(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"a.v4.rules", "a.v6.rules", "b.v4.rules"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{"a.v4.rules": filepath.Join(dir, "a.v6.rules"), "b.v4.rules": ""} {
		var o upOptions
		o.cfg.Rules4 = filepath.Join(dir, in)
		if err := o.rules(); err != nil {
			t.Fatal(err)
		}
		if o.cfg.Rules6 != want {
			t.Errorf("%s: IPv6 rules %q, want %q", in, o.cfg.Rules6, want)
		}
	}
}

func TestExposeDefaults(t *testing.T) {
	for args, want := range map[string]string{
		"":                                     "ClusterIP 8080",
		"--protocol udp":                       "ClusterIP 5353",
		"--node-port 30001":                    "NodePort 8080",
		"--external-traffic-policy Local":      "NodePort 8080",
		"--source-range 192.0.2.0/24":          "LoadBalancer 8080",
		"--type LoadBalancer --target-port 99": "LoadBalancer 99",
	} {
		var o exposeOptions
		cmd := exposeCommand()
		o.e.Protocol = "TCP"
		if err := cmd.ParseFlags(append([]string{"--port", "80"}, strings.Fields(args)...)); err != nil {
			t.Fatal(err)
		}
		get := func(n string) string { return cmd.Flags().Lookup(n).Value.String() }
		o.e.Protocol, o.e.Type, o.e.ExternalPolicy = get("protocol"), get("type"), get("external-traffic-policy")
		o.e.NodePort, _ = cmd.Flags().GetInt("node-port")
		o.e.TargetPort, _ = cmd.Flags().GetInt("target-port")
		o.e.SourceRanges, _ = cmd.Flags().GetStringSlice("source-range")
		o.complete()
		if got := strings.Join([]string{o.e.Type, strconv.Itoa(o.e.TargetPort)}, " "); got != want {
			t.Errorf("lab expose %s: %s, want %s", args, got, want)
		}
	}
}
