// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
)

// newHealth serves /healthz and /readyz.
func newHealth(s *sampler) http.Handler {
	h := &health{sampler: s, started: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.alive)
	mux.HandleFunc("GET /readyz", h.ready)
	return mux
}

type health struct {
	*sampler
	started time.Time
}

// patience is how long a pass may be under way before the loop counts as
// stuck.
func (h *health) patience() time.Duration { return max(time.Minute, 4*h.cfg.Interval) }

// alive fails when the sampling loop has not ended a pass for too long. That
// sources cannot be read is no reason: a restart would not help.
func (h *health) alive(w http.ResponseWriter, _ *http.Request) {
	if age := time.Since(h.lastEnd()); age > h.patience() {
		http.Error(w, fmt.Sprintf("stuck: no sampling has ended for %.0f seconds", age.Seconds()), http.StatusServiceUnavailable)
		return
	}
	writeText(w, "ok\n")
}

// lastEnd is when the last pass ended, with a monotonic reading: a clock that
// is set must not get the agent killed.
func (h *health) lastEnd() time.Time {
	if d := h.lastPass.Load(); d != 0 {
		return h.sampler.started.Add(time.Duration(d))
	}
	return h.started
}

// ready fails until the node's rules are known: a source that cannot be read
// may be the one that kube-proxy writes to. An agent that was given no
// capability will never know them: it is ready for what it can do. The API is
// told but not waited for: without it the agent has names from the rules.
func (h *health) ready(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	s := h.latest.Load()
	if s != nil {
		for _, c := range s.Self.Collectors {
			switch {
			case c.Name == "kube":
				continue
			case c.Success:
				fmt.Fprintf(&b, "%s: ok\n", c.Name)
			default:
				fmt.Fprintf(&b, "%s: %s\n", c.Name, c.Err)
			}
		}
	}
	fmt.Fprintf(&b, "kube: %s\n", h.apiText())
	switch {
	case s == nil:
		http.Error(w, "not ready: the first reading is not complete\n"+b.String(), http.StatusServiceUnavailable)
	case s.Node.ProxyMode == "unknown" && denied(s):
		writeText(w, "ready, without rules: they cannot be read without CAP_NET_ADMIN\n"+b.String())
	case s.Node.ProxyMode == "unknown":
		http.Error(w, "not ready: the rules that could be read have none of kube-proxy's\n"+b.String(), http.StatusServiceUnavailable)
	default:
		writeText(w, "ready\n"+b.String())
	}
}

// denied reports whether all sources of rules that fail do so for lack of the
// capability, and at least one does.
func denied(s *correlate.Snapshot) bool {
	found := false
	for _, c := range s.Self.Collectors {
		if c.Success || c.Name != "nftables" && c.Name != "legacy" {
			continue
		}
		if !c.Denied {
			return false
		}
		found = true
	}
	return found
}

// apiText is the state of the API in words.
func (h *health) apiText() string {
	k := h.kube.state()
	wait := time.Until(k.until)
	switch {
	case !k.enabled:
		return "not used; names come from rules"
	case k.current && !k.noNode:
		return "ok"
	case wait > 0:
		return fmt.Sprintf("first list in %.0f seconds (--kube.start-jitter); names come from rules", wait.Seconds())
	case k.err != "":
		return k.err
	}
	return "not synced yet; names come from rules"
}

// writeText sends a text with status 200.
func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text) // the prober's going away is not our error
}
