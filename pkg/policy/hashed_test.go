// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"iter"
	"strings"
	"testing"
)

// long is the name of a policy that makes each prefix too long.
const long = "allow-from-the-other-side-of-the-river-to-the-web"

// opensslHash is the middle of its prefix.
const opensslHash = "-babdj7FQ2apdlrqyT0kK0zu5ydR1niGhVbeuORo_"

func policiesOf(names ...string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, n := range names {
			namespace, name, _ := strings.Cut(n, "/")
			if !yield(namespace, name) {
				return
			}
		}
	}
}

// TestUnhash knows whose a prefix is by its hash alone. The first one was made with
//
//	printf %s 'DPI0|knp/shop/knp.default.allow-from-the-other-side-of-the-river-to-the-web' | openssl dgst -sha256 -binary | basenc --base64url | cut -b -41
func TestUnhash(t *testing.T) {
	all := policiesOf("shop/"+long, "shop/"+long+"x", "other/"+long, "shop/short", "a-namespace-that-is-longer-than-its-policies/web")
	for _, tt := range []struct{ name, prefix, want string }{
		{"as openssl has it", "DPI0|knp/s_" + opensslHash + "_to-the-web", "shop/" + long},
		{"since 3.32", hashPrefix("DPI0|knp/shop/knp.default." + long), "shop/" + long},
		{"by its own name", hashPrefix("DPE12|knp/shop/" + long), "shop/" + long},
		{"before", hashPrefix("DPE3|shop/knp.default." + long), "shop/" + long},
		{"of another namespace", hashPrefix("DPI0|knp/other/knp.default." + long), "other/" + long},
		{"by one letter", hashPrefix("DPI0|knp/shop/knp.default." + long + "x"), "shop/" + long + "x"},
		{"a short name", hashPrefix("DPI0|knp/a-namespace-that-is-longer-than-its-policies/knp.default.web"), "a-namespace-that-is-longer-than-its-policies/web"},
		{"allowed", hashPrefix("API0|knp/shop/knp.default." + long), "shop/" + long},
		{"of no policy that is there", hashPrefix("DPI0|knp/gone/knp.default." + long), ""},
		{"of another index, with that hash", "DPI1|knp/s_" + opensslHash + "_to-the-web", ""},
		{"Calico's own", hashPrefix("DPI0|np/shop/" + long + long), ""},
		{"a profile", hashPrefix("DRI0|kns." + long + long), ""},
		{"an index without end", "DPI0000000_" + opensslHash + "_to-the-web", ""},
		{"not hashed", "DPI0|knp/shop/knp.default.short", ""},
		{"nothing", "", ""},
	} {
		got, ok := Unhash(tt.prefix, all)
		text := ""
		if ok {
			text = got.Namespace + "/" + got.Name
		}
		if text != tt.want {
			t.Errorf("%s: %q is of %q, want %q", tt.name, tt.prefix, text, tt.want)
		}
		if l, parsed := ParseLogged(tt.prefix); ok && (!parsed || !l.Hashed) {
			t.Errorf("%s: %q is not taken for a hashed prefix", tt.name, tt.prefix)
		}
	}
}

func FuzzUnhash(f *testing.F) {
	f.Add("DPI0|knp/s_"+opensslHash+"_to-the-web", "shop", long)
	f.Add(strings.Repeat("D", 70), "", "")
	f.Add(strings.Repeat("|", 63), "|", "|||||||||||")
	f.Fuzz(func(t *testing.T, prefix, namespace, name string) {
		o, ok := Unhash(prefix, policiesOf(namespace+"/"+name))
		if ok && len(prefix) != calicoHashed || !ok && o != (Object{}) {
			t.Errorf("%q: %+v, %v", prefix, o, ok)
		}
	})
}
