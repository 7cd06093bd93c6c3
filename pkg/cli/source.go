// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/correlate"
)

const (
	defaultAgent = "http://127.0.0.1:10988"
	// noAgent as --agent reads the kernel without asking.
	noAgent = "none"
	// agentEnv is the environment's default for --agent: the chart sets it to
	// the port that it was given.
	agentEnv = "SVCSCOPE_AGENT"
	// maxReport bounds what is read from an agent: 10,000 Services with 3
	// endpoints each in two families are about 20 MB.
	maxReport = 256 << 20
)

// sourceOptions say where a command gets its numbers.
type sourceOptions struct {
	agent    string // base URL, or noAgent
	explicit bool   // the user named the agent: don't answer from elsewhere
	// from is the file of a snapshot that is read in place of this node, and clash is a
	// flag that was given beside it and says where else to read.
	from, clash string
	// direct is how to read without an agent, and entries whether those of
	// connection tracking are wanted then.
	direct  agent.Config
	entries bool
}

// bind adds the flags; the function that it returns reads them.
func (o *sourceOptions) bind(cmd *cobra.Command, getenv func(string) string) (parsed func()) {
	o.direct = agent.DefaultConfig()
	cmd.Flags().StringVar(&o.agent, "agent", defaultAgent,
		"`URL` of the agent to ask, instead of $"+agentEnv+`; "none" reads this node's kernel`)
	fromFlag(cmd, o)
	kube := kubeFlags(cmd, &o.direct)
	return func() {
		o.explicit = cmd.Flags().Changed("agent")
		o.clash = o.clashing(cmd)
		if !o.explicit {
			o.agent = cmp.Or(getenv(agentEnv), o.agent)
		}
		o.direct.Kube = agent.KubeMode(kube.value)
	}
}

// reportSource is a kind of report: its name, which is that of its page below
// /api/v1 too, and how it is made of a snapshot.
type reportSource[R any] struct {
	what string
	head func(*R) *correlate.ReportHead
	make func(*correlate.Snapshot) R
}

// readReport asks the agent, or reads the kernel where there is none, or a snapshot, and
// says on stderr which it did.
func readReport[R any](ctx context.Context, e *env, o sourceOptions, s reportSource[R]) (R, error) {
	if o.from != "" {
		return readSnapshotReport(e, o, s)
	}
	if o.agent == noAgent {
		return readDirect(ctx, e, o, s, "")
	}
	var r R
	err := getJSON(ctx, e.client, strings.TrimSuffix(o.agent, "/")+"/api/v1/"+s.what, &r)
	if err == nil && s.head(&r).Source == "" {
		err = errors.New("decode answer: not a report of " + s.what)
	}
	if err == nil {
		h := s.head(&r)
		fmt.Fprintf(e.stderr, "source: agent at %s, node %s, read %s ago%s\n",
			shown(o.agent), h.Node, duration.HumanDuration(max(0, e.now().Sub(h.Time))), kubeNote(h.Kube))
		return r, nil
	}
	if o.explicit || ctx.Err() != nil {
		return r, withRemedy(fmt.Errorf("read %s from agent %s: %w", s.what, shown(o.agent), err), agentRemedy(err))
	}
	reason := fmt.Sprintf("agent at %s: %v", shown(o.agent), err)
	if errors.Is(err, syscall.ECONNREFUSED) {
		reason = "no agent at " + shown(o.agent)
	}
	return readDirect(ctx, e, o, s, " ("+reason+")")
}

// readDirect reads the kernel; why is the reason, for the line that says so.
func readDirect[R any](ctx context.Context, e *env, o sourceOptions, s reportSource[R], why string) (R, error) {
	snapshot, err := readKernel(ctx, e, o)
	if err != nil {
		if why != "" {
			fmt.Fprintf(e.stderr, "source: this node's kernel%s\n", why)
		}
		var none R
		return none, err
	}
	r := s.make(snapshot)
	h := s.head(&r)
	h.Source = correlate.SourceKernel
	fmt.Fprintf(e.stderr, "source: this node's kernel%s%s\n", why, kubeNote(h.Kube))
	return r, nil
}

// readKernel reads this node once.
func readKernel(ctx context.Context, e *env, o sourceOptions) (*correlate.Snapshot, error) {
	c, err := directConfig(e, o)
	if err != nil {
		return nil, err
	}
	if !o.entries {
		c.ConntrackInterval = 0
	}
	return e.readOnce(ctx, c)
}

// kubeNote says where names come from when it is not the API.
func kubeNote(k correlate.KubeReport) string {
	switch {
	case k.Synced:
		return ""
	case k.Enabled && k.Error != "":
		return "; names from rules, the API is not reached: " + k.Error
	case k.Enabled:
		return "; names from rules, the API is not read yet"
	}
	return "; names from rules"
}

// getJSON reads one JSON document of an agent into v. Errors give the cause
// alone: the caller knows the address.
func getJSON(ctx context.Context, client *http.Client, address string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return urlCause(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return tlsCause(urlCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReport)).Decode(v); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}
