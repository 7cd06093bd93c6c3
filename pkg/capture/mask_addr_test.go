// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// TestAddresses: what is kept and what is not.
func TestAddresses(t *testing.T) {
	m := testMasker(t)
	for _, s := range []string{
		"0.0.0.0", "127.0.0.1", "127.8.9.10", "169.254.20.10", "224.0.0.251", "255.255.255.255", "255.255.255.0",
		"::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "ffff:ffff:ffff:ffff::", "::ffff:127.0.0.1",
	} {
		if a := netip.MustParseAddr(s); m.addr(a) != a {
			t.Errorf("%s became %s", a, m.addr(a))
		}
	}
	for _, s := range []string{
		"10.96.0.1", "10.244.3.7", "172.16.5.4", "192.168.1.1", "100.64.0.9", "203.0.113.7", "8.8.8.8",
		"fd00:10:96::a", "2001:db8::1", "64:ff9b::c000:201", "::ffff:10.0.0.1",
	} {
		a := netip.MustParseAddr(s)
		got := m.addr(a)
		if got == a || got.Is4() != a.Is4() || got.Is4In6() != a.Is4In6() || got.IsPrivate() != a.IsPrivate() || got.IsGlobalUnicast() != a.IsGlobalUnicast() {
			t.Errorf("%s became %s", a, got)
		}
		if again := testMasker(t).addr(a); again != got {
			t.Errorf("%s became %s, and then %s", a, got, again)
		}
	}
	if a := netip.MustParseAddr("64:ff9b::c000:201"); !embedded.Contains(m.addr(a)) {
		t.Errorf("%s became %s", a, m.addr(a))
	}
	if m.addr(netip.Addr{}).IsValid() || m.prefix(netip.Prefix{}).IsValid() {
		t.Error("no address became one")
	}
	all, one := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.2.3/32")
	if m.prefix(all) != all || m.prefix(one) != netip.PrefixFrom(m.addr(one.Addr()), 32) {
		t.Errorf("prefixes became %s and %s", m.prefix(all), m.prefix(one))
	}
}

// TestNetworks: two addresses have as many bits in common after as before, so that
// networks stay networks and no two addresses become one.
func TestNetworks(t *testing.T) {
	m := testMasker(t)
	r := rand.New(rand.NewPCG(1, 2))
	common := func(a, b netip.Addr) int {
		for n := a.BitLen(); n > 0; n-- {
			if netip.PrefixFrom(a, n).Masked().Contains(b) {
				return n
			}
		}
		return 0
	}
	for _, bits := range []int{32, 128} {
		for range 2000 {
			var x, y [16]byte
			for i := range x {
				x[i] = byte(r.Uint32())
			}
			if r.IntN(4) == 0 { // near something that is kept
				p := allNetworks[r.IntN(len(allNetworks))]
				copy(x[:], p.Addr().AsSlice())
			}
			y = x
			for i := r.IntN(bits / 8); i < bits/8; i++ {
				y[i] = byte(r.Uint32())
			}
			a, b := netip.AddrFrom16(x), netip.AddrFrom16(y)
			if bits == 32 {
				a, b = netip.AddrFrom4([4]byte(x[:])), netip.AddrFrom4([4]byte(y[:]))
			}
			if a.Is4In6() || b.Is4In6() || embedded.Contains(a) || embedded.Contains(b) {
				continue
			}
			if before, after := common(a, b), common(m.addr(a), m.addr(b)); before != after {
				t.Fatalf("%s and %s have %d bits in common, and then %s and %s have %d", a, b, before, m.addr(a), m.addr(b), after)
			}
			for _, p := range allNetworks {
				if p.Contains(a) != p.Contains(m.addr(a)) {
					t.Fatalf("%s became %s, of which one is in %s", a, m.addr(a), p)
				}
			}
		}
	}
}

// TestTexts has texts with addresses in them, and texts without.
func TestTexts(t *testing.T) {
	m := testMasker(t)
	at := func(s string) string { return m.addr(netip.MustParseAddr(s)).String() }
	net := func(s string) string { return m.prefix(netip.MustParsePrefix(s)).String() }
	for text, want := range map[string]string{
		"shop/web:http -> 10.0.0.1:80":                                                "shop/web:http -> " + at("10.0.0.1") + ":80",
		"shop/web:http -> [fd00::1]:80":                                               "shop/web:http -> [" + at("fd00::1") + "]:80",
		"-s 10.1.0.0/16 ! -d 10.1.2.3/32":                                             "-s " + net("10.1.0.0/16") + " ! -d " + net("10.1.2.3/32"),
		"--to-source 10.0.0.1-10.0.0.9 --persistent":                                  "--to-source " + at("10.0.0.1") + "-" + at("10.0.0.9") + " --persistent",
		"Get \"https://10.96.0.1:443/api\": dial tcp 10.96.0.1:443: connect: refused": "Get \"https://" + at("10.96.0.1") + ":443/api\": dial tcp " + at("10.96.0.1") + ":443: connect: refused",
		"dial tcp [fd00::1]:443: no route":                                            "dial tcp [" + at("fd00::1") + "]:443: no route",
		"read 10.0.0.1.":                                                              "read " + at("10.0.0.1") + ".",
		"fd00::1: gone":                                                               at("fd00::1") + ": gone",
		"node10.0.0.1":                                                                "node" + at("10.0.0.1"),
		"10.1.2.x":                                                                    strings.TrimSuffix(at4(m, "10.1.2.0/24"), "0") + "x",
		"10.1.2.x:443":                                                                strings.TrimSuffix(at4(m, "10.1.2.0/24"), "0") + "x:443",
		"[2001:db8:1::x]:443":                                                         "[" + at4(m, "2001:db8:1::/48") + "x]:443",
		"0.0.0.0/0 and ::/0":                                                          "0.0.0.0/0 and ::/0",
		"12:00:00.123 2026-03-01T12:00:00Z v1.37.2 6.18.0":                            "12:00:00.123 2026-03-01T12:00:00Z v1.37.2 6.18.0",
		"cafe/beef:dead cluster IP":                                                   "cafe/beef:dead cluster IP",
		"shop/web:http cluster IP":                                                    "shop/web:http cluster IP",
		"KUBE-SVC-67NZLRHBNDSAWJRO":                                                   "KUBE-SVC-67NZLRHBNDSAWJRO",
		"[rev 1 unsupported: 0a000001]":                                               "[rev 1 unsupported: masked]",
		"--set-xmark 0x4000/0xffffffff":                                               "--set-xmark 0x4000/0xffffffff",
		"":                                                                            "",
	} {
		if got := m.text(text); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", text, got, want)
		}
	}
	calico := m.text("cali:Kqaf9ooPr5LwvN_e Policy default/web ingress")
	if !regexp.MustCompile(`^cali:[0-9a-z]{16} Policy default/web ingress$`).MatchString(calico) || strings.Contains(calico, "Kqaf9ooPr5LwvN_e") {
		t.Errorf("Calico's hash of a rule became %s", calico)
	}
}

// at4 is a network's address.
func at4(m *masker, s string) string { return m.prefix(netip.MustParsePrefix(s)).Addr().String() }

// TestNativeNames has the names of kube-proxy's nftables mode.
func TestNativeNames(t *testing.T) {
	m := testMasker(t)
	at := func(s string) string { return strings.ReplaceAll(m.addr(netip.MustParseAddr(s)).String(), ":", ".") }
	for name, want := range map[string]string{
		"endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80":       `^endpoint-[A-Z2-7]{8}-ns1/svc1/tcp/p80__` + regexp.QuoteMeta(at("10.180.0.1")) + `/80$`,
		"affinity-5OJB2KTY-ns1/svc1/tcp/p80__fd00.10.244..7/8":    `^affinity-[A-Z2-7]{8}-ns1/svc1/tcp/p80__` + regexp.QuoteMeta(at("fd00:10:244::7")) + `/8$`,
		"endpoint-5OJB2KTY-ns1/a-very-long-name/tcp/p80__10.1...": `^endpoint-[A-Z2-7]{16}$`,
		"service-ULMVA6XW-ns1/svc1/tcp/p80":                       `^service-ULMVA6XW-ns1/svc1/tcp/p80$`,
	} {
		got := m.text(name)
		if !regexp.MustCompile(want).MatchString(got) || strings.Contains(got, "5OJB2KTY") {
			t.Errorf("%s became %s, want %s", name, got, want)
		}
	}
}
