// SPDX-License-Identifier: Apache-2.0

// Package agent is the composition: it samples the kernel on an interval,
// follows the API, keeps the ledger, and serves the newest snapshot by HTTP.
// It owns every goroutine of the program; Run returns when all have ended.
//
//	err := agent.Run(ctx, cfg)        // the agent, until ctx ends
//	s, err := agent.ReadOnce(ctx, cfg) // one reading, for the command line
//
// A source that cannot be read is told in svcscope_collector_success and in the
// log, and tried again at the next sampling; it ends neither the agent nor the
// other sources. The API is one of them.
package agent
