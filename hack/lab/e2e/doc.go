// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests of the whole program: a real API server and
// kube-proxy, real connections, the agent with CAP_NET_ADMIN alone, and a real
// Prometheus. Numbers that the agent reports are compared with what was opened
// and with what iptables-save says.
package e2e
