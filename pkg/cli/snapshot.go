// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/prometheus/common/version"
	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/correlate"
)

const snapshotHelp = `This node at this moment as one file, written to standard output: the rules of both
backends with their counters, what the API wants, sums of connection tracking,
sysctls that decide on Services, versions, and the reports of the other commands.

Every command that reads a node reads such a file in its place with --from, on any
machine, and prints what it would have printed on the node. svcscope diff compares
two of them. docs/snapshot.md describes the format.

It reads the kernel itself, and needs what the agent needs: UID 0 and CAP_NET_ADMIN
in the node's network namespace. The reports are the agent's where one answers.

The file has the addresses of pods, nodes and Services, and of clients where the
reports have them. --mask replaces each by another one, always the same: which
addresses are equal, which are in one network and which chains belong to which
endpoint stays to be seen. Names of Services, namespaces, pods and nodes stay.
With the same --mask-key-file the addresses of all nodes are replaced alike.`

const snapshotExamples = `  # on the node
  svcscope snapshot > node.tgz

  # in the agent's pod, to be attached to a bug report
  kubectl -n svcscope exec ds/svcscope -- svcscope snapshot --mask > node.tgz

  # anywhere
  svcscope services --from node.tgz

  # other addresses in a file that is there
  svcscope snapshot --from node.tgz --mask > masked.tgz`

type snapshotOptions struct {
	source  sourceOptions
	mask    bool
	keyFile string
}

func newSnapshot(e *env) *cobra.Command {
	var o snapshotOptions
	cmd := &cobra.Command{
		Use:     "snapshot",
		Short:   "This node as one file, which every other command can read",
		Long:    snapshotHelp,
		Example: snapshotExamples,
		Args:    cobra.NoArgs,
	}
	parsed := o.source.bind(cmd, e.getenv)
	cmd.Flags().BoolVar(&o.mask, "mask", false, "replace the addresses of pods, nodes, clients and Services")
	cmd.Flags().StringVar(&o.keyFile, "mask-key-file", "",
		"with --mask: `file` whose content, 16 bytes or more, decides by which ones; without it chance does")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		parsed()
		if o.keyFile != "" && !o.mask {
			return &usageError{errors.New("--mask-key-file is for --mask")}
		}
		return runSnapshot(cmd.Context(), e, o)
	}
	return cmd
}

func runSnapshot(ctx context.Context, e *env, o snapshotOptions) error {
	if e.terminal() {
		return withRemedy(errors.New("write snapshot: standard output is a terminal"), "svcscope snapshot > node.tgz")
	}
	s, err := takeSnapshot(ctx, e, o.source)
	if err != nil {
		return err
	}
	if o.mask {
		if s, err = maskSnapshot(s, o.keyFile); err != nil {
			return err
		}
	}
	w := bufio.NewWriter(e.stdout)
	if err := errors.Join(capture.Write(w, s), w.Flush()); err != nil {
		return err
	}
	if s.Mask == "" {
		fmt.Fprintln(e.stderr, "note: the file has addresses; --mask replaces them")
	}
	return nil
}

func maskSnapshot(s *capture.Snapshot, keyFile string) (*capture.Snapshot, error) {
	key := make([]byte, 32)
	if keyFile != "" {
		var err error
		if key, err = os.ReadFile(keyFile); err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
	} else if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return capture.Mask(s, key)
}

// takeSnapshot reads this node, or a file. The node comes last: nothing in the file is
// later than the time that it has.
func takeSnapshot(ctx context.Context, e *env, o sourceOptions) (*capture.Snapshot, error) {
	if o.from != "" {
		return readSnapshot(e, o)
	}
	s := &capture.Snapshot{
		Version: version.Version, Reports: make(map[string]json.RawMessage), Unreported: make(map[string]string),
	}
	of, err := takeReports(ctx, e, o, s)
	if err != nil {
		return nil, err
	}
	for _, name := range capture.ReportNames() {
		if why := s.Unreported[name]; why != "" && why != noHistory {
			fmt.Fprintf(e.stderr, "warning: report %s: %s\n", name, why)
		}
	}
	if s.Node, err = readNode(ctx, e, o); err != nil {
		return nil, err
	}
	if of != s.Node.Name {
		fmt.Fprintf(e.stderr, "warning: the reports are of node %s, and the rules of node %s\n", of, s.Node.Name)
	}
	return s, nil
}

// noHistory is why a snapshot has no history where no agent answers.
const noHistory = "no agent was there, which alone has seen changes"

// document is a report as a snapshot holds it.
type document struct {
	what string
	// entries: it is of a reading with those of connection tracking.
	entries bool
	// make makes it of one reading of the kernel, as its command does; nil of what only an
	// agent knows.
	make func(context.Context, *env, sourceOptions, *correlate.Snapshot) (json.RawMessage, error)
}

// documents are all that a snapshot has.
func documents() []document {
	return []document{
		documentOf(servicesSource(), false, nil), documentOf(conntrackSource(), true, nil), documentOf(dropsSource(), false, nil),
		documentOf(driftSource(), false, confirmDrift), {what: historySource().what},
	}
}

// documentOf is a report of a kind, of which more, unless it is nil, is another look.
func documentOf[R any](s reportSource[R], entries bool, more func(context.Context, *env, sourceOptions, R) (R, error)) document {
	return document{s.what, entries, func(ctx context.Context, e *env, o sourceOptions, snapshot *correlate.Snapshot) (json.RawMessage, error) {
		r := s.make(snapshot)
		s.head(&r).Source = correlate.SourceKernel
		if more != nil {
			var err error
			if r, err = more(ctx, e, o, r); err != nil {
				return nil, err
			}
		}
		return json.Marshal(r)
	}}
}

// takeReports asks the agent for all reports, or makes them of what the kernel has where
// there is none, and says on stderr which it did. It returns the name of the node that
// they are of.
func takeReports(ctx context.Context, e *env, o sourceOptions, s *capture.Snapshot) (node string, err error) {
	if o.agent == noAgent {
		return makeReports(ctx, e, o, s, "")
	}
	for i, d := range documents() {
		b, of, err := agentDocument(ctx, e, o, d.what)
		switch {
		case err == nil:
			s.Reports[d.what], node = b, of
		case i > 0: // it answers, and has not this one
			s.Unreported[d.what] = err.Error()
		case o.explicit || ctx.Err() != nil:
			return "", withRemedy(fmt.Errorf("read %s from agent %s: %w", d.what, shown(o.agent), err), agentRemedy(err))
		case errors.Is(err, syscall.ECONNREFUSED):
			return makeReports(ctx, e, o, s, " (no agent at "+shown(o.agent)+")")
		default:
			return makeReports(ctx, e, o, s, fmt.Sprintf(" (agent at %s: %v)", shown(o.agent), err))
		}
	}
	fmt.Fprintf(e.stderr, "reports: agent at %s\n", shown(o.agent))
	return node, nil
}

// agentDocument is a report of the agent, byte for byte, and the node that it is of.
func agentDocument(ctx context.Context, e *env, o sourceOptions, what string) (b json.RawMessage, node string, err error) {
	if err := getJSON(ctx, e.client, strings.TrimSuffix(o.agent, "/")+"/api/v1/"+what, &b); err != nil {
		return nil, "", err
	}
	var head struct {
		Node   string                 `json:"node"`
		Source correlate.ReportSource `json:"source"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Source == "" {
		return nil, "", errors.New("decode answer: not a report of " + what)
	}
	return b, head.Node, nil
}

// makeReports reads the kernel as the other commands do without an agent.
func makeReports(ctx context.Context, e *env, o sourceOptions, s *capture.Snapshot, why string) (node string, err error) {
	fmt.Fprintf(e.stderr, "reports: this node's kernel%s\n", why)
	readings := make(map[bool]*correlate.Snapshot) // by whether they have entries
	for _, d := range documents() {
		if d.make == nil {
			s.Unreported[d.what] = noHistory
			continue
		}
		if readings[d.entries] == nil {
			o.entries = d.entries
			if readings[d.entries], err = readKernel(ctx, e, o); err != nil {
				return "", err // the node cannot be read, either
			}
		}
		b, err := d.make(ctx, e, o, readings[d.entries])
		if ctx.Err() != nil {
			return "", fmt.Errorf("read %s: %w", d.what, ctx.Err())
		}
		if err != nil {
			s.Unreported[d.what] = err.Error()
			continue
		}
		s.Reports[d.what], node = b, readings[d.entries].Node.Name
	}
	return node, nil
}
