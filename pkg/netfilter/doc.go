// SPDX-License-Identifier: Apache-2.0

// Package netfilter holds the few words that all decoders of netfilter's
// binary interfaces share: Family, Hook, Counter, the nfgenmsg header and
// ShortError. It opens nothing and knows no single subsystem; those are its
// sub-packages.
package netfilter
