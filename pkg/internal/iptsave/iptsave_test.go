// SPDX-License-Identifier: Apache-2.0

package iptsave

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

func TestWhatIPTablesSavePrintsIsReadAndPrintedUnchanged(t *testing.T) {
	for file, family := range map[string]netfilter.Family{
		"iptables-1.8.9-ip4.save": netfilter.IPv4,
		"iptables-1.8.9-ip6.save": netfilter.IPv6,
	} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + file)
			if err != nil {
				t.Fatal(err)
			}
			rs, err := Parse(family, ruleset.Legacy, string(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Normalize(string(text)), Format(rs)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a rule before any table", "-A X -j DROP\n", `line 1: "-A X -j DROP" outside a table`},
		{"a table without its end", "*nat\n", "table nat: no COMMIT"},
		{"an open quote", "*nat\n-A X -m comment --comment \"a\n", `line 2: quote not closed in "-A X -m comment --comment \"a"`},
		{"a port that is none", "*nat\n-A X -p tcp -m tcp --dport 99999\n", `line 2: -m tcp: port "99999"`},
		{"an option that is none", "*nat\n-A X -z\n", `line 2: option "-z"`},
		{"a policy of a user chain", "*nat\n:X DROP [0:0]\n", "line 2: chain X has a policy and is no built-in chain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(netfilter.IPv4, ruleset.Legacy, tt.text)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestOptionsMayStandApartFromTheirModule(t *testing.T) {
	const text = `*nat
:X - [0:0]
-A X -m comment --comment "a/b cluster IP" -m tcp -p tcp -d 10.0.0.1 ! --dport 80 ! -s 10.1.0.0/16 -j RETURN
COMMIT
`
	rs, err := Parse(netfilter.IPv4, ruleset.Legacy, text)
	if err != nil {
		t.Fatal(err)
	}
	want := `! -s 10.1.0.0/16 -d 10.0.0.1/32 -p tcp -m comment --comment "a/b cluster IP" -m tcp ! --dport 80 -j RETURN`
	if got := rs.Table("nat").Chain("X").Rules[0].Spec(netfilter.IPv4); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
