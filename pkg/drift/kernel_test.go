// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/nftables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// TestRulesOfTheKernel: the captures, loaded into the kernel and read from there, do not
// differ, and an edit does. This is how the kernel tells probabilities and the like.
func TestRulesOfTheKernel(t *testing.T) {
	tests := []struct {
		file, tool string
		family     netfilter.Family
	}{
		{"iptables-nft.ipv4.save", "iptables", netfilter.IPv4},
		{"iptables-nft.ipv6.save", "ip6tables", netfilter.IPv6},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				text := fixture{file: tt.file}.text(t)
				// The objects are not there, and the rules that count with them cannot be.
				text = regexp.MustCompile("-m nfacct --nfacct-name +[a-z_]+ ").ReplaceAllString(text, "")
				read := func() []Rules {
					legacy, _ := kernelrules.Legacy(t, tt.family)
					nft, _ := kernelrules.NFT(t, tt.family, func(_ nftables.Table, chains []nftables.Chain) []nftables.Chain { return chains })
					var out []Rules
					for _, rs := range []*ruleset.Ruleset{legacy, nft} {
						out = append(out, Rules{View: kubeproxy.NewView(rs), Set: rs})
					}
					return out
				}
				for _, backend := range []string{"legacy", "nft"} {
					kerneltest.Exec(t, text, tt.tool+"-"+backend+"-restore")
				}
				for _, r := range read() {
					got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{r}})
					if len(got.Differences) > 0 || len(got.Families) != 1 {
						t.Errorf("%s: %+v", r.View.Backend, got)
					}
				}
				edited := save(strings.Split(strings.TrimSpace(text), "\n")).
					replaced("0.50000000000", "0.50000100000", "-A KUBE-SVC-"+web).replaced("--seconds 600", "--seconds 601", "-A KUBE-SVC-"+sticky)
				for _, backend := range []string{"legacy", "nft"} {
					kerneltest.Exec(t, edited.String(), tt.tool+"-"+backend+"-restore")
				}
				for _, r := range read() {
					got := Compare(&Input{Catalog: catalog(t), Rules: []Rules{r}})
					want := []string{"affinity_missing default/sticky:http", "wrong_probability default/web:http"}
					if diff := cmp.Diff(want, describe(got.Differences)); diff != "" {
						t.Errorf("%s, edited (-want +got)\n%s", r.View.Backend, diff)
					}
				}
			})
		})
	}
}
