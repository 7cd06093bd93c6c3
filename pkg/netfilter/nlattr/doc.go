// SPDX-License-Identifier: Apache-2.0

// Package nlattr iterates over netlink messages (struct nlmsghdr) and netlink
// attributes (struct nlattr), bounds-checked and without allocating: what the
// iterators hand out are slices of the buffer they were given. It also
// appends attributes to a request. It knows no subsystem, opens nothing, and
// never panics, whatever the bytes.
//
//	for a := nlattr.Attrs(b); a.Next(); {
//		switch a.Type() {
//		case nftaRuleHandle:
//			handle = a.Uint64("NFTA_RULE_HANDLE")
//		}
//	}
//
// Errors are *netfilter.ShortError where bytes end too early and *Error,
// which names the attribute, where a value has another length or shape than
// its type. Both stick: after the first one Next returns false.
package nlattr
