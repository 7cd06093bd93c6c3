// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"encoding/base64"
	"iter"
	"strings"
)

// Unhash finds the one of Kubernetes' NetworkPolicies, given by namespace and name, whose
// prefix was too long for felix (maybeHash in felix/rules/nflogprefix.go): the hash is of
// the whole prefix. ok is false where it is of none of them.
func Unhash(prefix string, policies iter.Seq2[string, string]) (o Object, ok bool) {
	if len(prefix) != calicoHashed || prefix[1] != 'P' {
		return Object{}, false
	}
	what, _, found := strings.Cut(prefix[:calicoKept], "|") // with the rule's index
	if !found {
		return Object{}, false
	}
	tail := prefix[calicoHashed-calicoKept:]
	for namespace, name := range policies {
		if len(name) >= calicoKept && !strings.HasSuffix(name, tail) {
			continue
		}
		// Since 3.32, either way of naming it, and before.
		for _, id := range [...]string{
			"knp/" + namespace + "/knp.default." + name, "knp/" + namespace + "/" + name, namespace + "/knp.default." + name,
		} {
			if hashPrefix(what+"|"+id) == prefix {
				return Object{Namespace: namespace, Name: name}, true
			}
		}
	}
	return Object{}, false
}

// hashPrefix is the prefix that felix gives to NFLOG.
func hashPrefix(s string) string {
	if len(s) < calicoHashed {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	hash := base64.RawURLEncoding.EncodeToString(sum[:])
	return s[:calicoKept] + "_" + hash[:calicoHashed-2*calicoKept-2] + "_" + s[len(s)-calicoKept:]
}
