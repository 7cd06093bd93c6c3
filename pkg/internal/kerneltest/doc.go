// SPDX-License-Identifier: Apache-2.0

// Package kerneltest runs tests against the real kernel in namespaces of
// their own, as root and without root alike:
//
//	func TestRead(t *testing.T) {
//		kerneltest.Run(t, func(t *testing.T) {
//			kerneltest.Exec(t, rules, "iptables-nft-restore")
//			...
//		})
//	}
//
// Run executes the test binary again, for this one test, in new user, network,
// mount and PID namespaces; whatever the test makes dies with that process.
// Exec runs an independent tool, the oracle. Need and NeedTool are the only
// ways to skip, and they fail instead when SVCSCOPE_REQUIRE_KERNEL=1.
package kerneltest
