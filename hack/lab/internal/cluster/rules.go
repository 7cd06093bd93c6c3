// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
	"github.com/svcscope/svcscope/hack/lab/internal/topology"
)

// Rules reads what kube-proxy has written on a node.
type Rules struct {
	// Node is the namespace to read in.
	Node string
	// ProxyMode is kube-proxy's.
	ProxyMode string
}

// text returns the rules of a family, "IPv4" or "IPv6".
func (r Rules) text(ctx context.Context, family string) (string, error) {
	argv := []string{"iptables-save"}
	switch {
	case r.ProxyMode == "nftables" && family == "IPv6":
		argv = []string{"nft", "list", "table", "ip6", "kube-proxy"}
	case r.ProxyMode == "nftables":
		argv = []string{"nft", "list", "table", "ip", "kube-proxy"}
	case family == "IPv6":
		argv = []string{"ip6tables-save"}
	}
	full := nsexec.Argv("lab", nsexec.Options{Netns: r.Node}, argv)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = full
	out, err := cmd.Output()
	if err != nil {
		if ee, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, ee.Stderr)
		}
		return "", fmt.Errorf("%s on %s: %w", strings.Join(argv, " "), r.Node, err)
	}
	return string(out), nil
}

// WaitFor returns when the node's rules are those of the Exposure.
func (r Rules) WaitFor(ctx context.Context, e Exposure, ex *Exposed) error {
	return r.wait(ctx, e, func(text, family string) error { return r.want(text, family, e, ex) })
}

// WaitGone returns when no rule of the Service is left.
func (r Rules) WaitGone(ctx context.Context, namespace, name string) error {
	re := regexp.MustCompile(`"` + regexp.QuoteMeta(namespace+"/"+name) + `[ ":]`)
	if r.ProxyMode == "nftables" {
		// Emptied chains stay until a later sync; what matters is that
		// nothing leads to them.
		re = regexp.MustCompile(`goto \S+-` + regexp.QuoteMeta(namespace+"/"+name) + `/|` + re.String())
	}
	return r.wait(ctx, Exposure{Families: "dual", Name: name}, func(text, family string) error {
		if m := re.FindString(text); m != "" {
			return fmt.Errorf("%s rules of %s still there", family, name)
		}
		return nil
	})
}

func (r Rules) wait(ctx context.Context, e Exposure, check func(text, family string) error) error {
	for _, family := range []string{"IPv4", "IPv6"} {
		if e.Families == "v4" && family == "IPv6" || e.Families == "v6" && family == "IPv4" {
			continue
		}
		err := Poll(ctx, SyncTimeout, func(ctx context.Context) error {
			text, err := r.text(ctx, family)
			if err != nil {
				return err
			}
			return check(text, family)
		}, nil)
		if err != nil {
			return fmt.Errorf("wait for kube-proxy to write %s: %w", e.Name, err)
		}
	}
	return nil
}

// want compares rules with the Exposure: its endpoints, its frontends, and
// its affinity.
func (r Rules) want(text, family string, e Exposure, ex *Exposed) error {
	endpoints, err := e.expected(family)
	if err != nil {
		return err
	}
	spn := e.Namespace + "/" + e.Name
	if e.PortName != "" {
		spn += ":" + e.PortName
	}
	proto := strings.ToLower(e.Protocol)
	if r.ProxyMode == "nftables" {
		return wantNFT(text, e, endpoints)
	}
	suffix := hash(spn + proto)
	var want, have []string
	for _, ip := range endpoints {
		want = append(want, "KUBE-SEP-"+hash(spn+proto+net.JoinHostPort(ip, strconv.Itoa(e.TargetPort))))
	}
	re := regexp.MustCompile(`(?m)^-A KUBE-SV[CL]-` + suffix + ` .*-j (KUBE-SEP-\w+)$`)
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		have = append(have, m[1])
	}
	slices.Sort(want)
	slices.Sort(have)
	if have = slices.Compact(have); !slices.Equal(want, have) {
		return fmt.Errorf("%s endpoints: have %v, want %v", family, have, want)
	}
	var lines []string
	switch {
	case len(want) == 0, e.InternalPolicy == "Local" && !e.anyLocal():
		lines = append(lines, `"`+spn+` has no `)
	default:
		lines = append(lines, `"`+spn+` cluster IP"`)
		if ex != nil && ex.NodePort != 0 {
			lines = append(lines, fmt.Sprintf(`--dport %d -j KUBE-EXT-%s`, ex.NodePort, suffix))
		}
	}
	for _, l := range lines {
		if !strings.Contains(text, l) {
			return fmt.Errorf("%s rules: no %s", family, l)
		}
	}
	if got := strings.Contains(text, "--rcheck") && len(want) > 0 && strings.Contains(text, "--name "+want[0]+" "); got != (e.Affinity && len(want) > 0) {
		return fmt.Errorf("%s affinity rules: %t, want %t", family, got, e.Affinity)
	}
	return nil
}

// wantNFT compares a service's chain in the table kube-proxy with its
// endpoints, which it names in one of three ways: the only one in a dnat
// statement, several in a map, and chains of their own with affinity.
func wantNFT(text string, e Exposure, endpoints []string) error {
	if len(endpoints) == 0 {
		spn := strings.TrimSuffix(e.Namespace+"/"+e.Name+":"+e.PortName, ":")
		if !strings.Contains(text, `comment "`+spn+`" : `) {
			return fmt.Errorf("rules: no refusal for %s", spn)
		}
		return nil
	}
	suffix := e.Namespace + "/" + e.Name + "/" + strings.ToLower(e.Protocol) + "/" + e.PortName
	chain := regexp.MustCompile(`(?s)chain service-[A-Z0-9]{8}-` + regexp.QuoteMeta(suffix) + ` \{(.*?)\n\t\}`).FindStringSubmatch(text)
	if chain == nil {
		return fmt.Errorf("rules: no chain of %s", suffix)
	}
	re := regexp.MustCompile(fmt.Sprintf(`: ([0-9a-f.:]+) \. %[1]d\b|dnat to \[?([0-9a-f.:]+?)\]?:%[1]d\b|__([0-9a-f.:]+)/%[1]d\b`, e.TargetPort))
	var have []string
	for _, m := range re.FindAllStringSubmatch(chain[1], -1) {
		have = append(have, canonical(m[1]+m[2]+m[3]))
	}
	want := slices.Clone(endpoints)
	slices.Sort(want)
	slices.Sort(have)
	if have = slices.Compact(have); !slices.Equal(want, have) {
		return fmt.Errorf("endpoints: have %v, want %v", have, want)
	}
	return nil
}

// canonical returns an address as Go writes it. A chain's name has dots in
// place of an IPv6 address's colons.
func canonical(s string) string {
	for _, v := range []string{s, strings.ReplaceAll(s, ".", ":")} {
		if a, err := netip.ParseAddr(v); err == nil {
			return a.String()
		}
	}
	return s
}

// anyLocal reports whether there is an endpoint on node1. Endpoints elsewhere
// are given by address.
func (e Exposure) anyLocal() bool {
	return slices.ContainsFunc(e.Endpoints, func(ep string) bool { return strings.HasPrefix(ep, "pod") })
}

// expected returns the endpoints that kube-proxy of node1 uses: those on
// other nodes are left out where only local ones are asked for.
func (e Exposure) expected(family string) ([]string, error) {
	addrs, err := e.addresses(family)
	if err != nil {
		return nil, err
	}
	local := topology.Node{Number: 1}.Name()
	var out []string
	for _, a := range addrs {
		if e.InternalPolicy != "Local" || e.Type != "ClusterIP" || len(e.ExternalIPs) > 0 || a.node == local {
			out = append(out, a.ip)
		}
	}
	return out, nil
}

// hash is kube-proxy's for chain names (portProtoHash in
// pkg/proxy/iptables/proxier.go).
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}
