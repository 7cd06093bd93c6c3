// SPDX-License-Identifier: Apache-2.0

//go:build nokube

package agent

import (
	"errors"
	"log/slog"
	"time"
)

// apiState is how the watch of the API goes.
type apiState struct {
	Synced, Current, ServicesCurrent, NodeMissing, NodeRefused bool
	Err                                                        string
	WaitUntil                                                  time.Time
}

// errNoAPI says that there will be no API.
var errNoAPI = errors.New("this binary is built without the Kubernetes client (tag nokube)")

// openWatcher finds no API: a third of what the agent is compiled from is the
// client of Kubernetes, and make demo shows numbers before that is built.
func openWatcher(Config) func() (watcher, error) {
	return func() (watcher, error) { return nil, errNoAPI }
}

func routeLogs(*slog.Logger) {}
