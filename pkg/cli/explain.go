// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/explain"
	"github.com/svcscope/svcscope/pkg/service"
)

const explainHelp = `The way that connections to a Service go on this node, rule by rule, with the rules'
live counters, beside what the API wants and what connection tracking has.

For each port and IP family: where packets come to KUBE-SERVICES, and for each
address by which the Service is reached which rule takes it, who is masqueraded
by it, and how it goes on to the endpoints; then the endpoints with their shares:

  PACKETS   new connections that the jumps to the endpoint have counted
  REAL      its share of them
  WANTED    the share that the API wants for it on this node
  RULES     the share that the rules give it
  DNAT      what the endpoint's own rule has counted, by all ways
  TRACKED   entries of connection tracking that lead to it by the Service's addresses
  STATE     what the API says of it, and where it is

Counters with a * are 0 again after each sync of kube-proxy; the others count since
their rule was written. A connection that is older than its rule goes on by its
entry: TRACKED may be more than DNAT.

"Differs" is where the rules are not what the API wants, by this one look: a change
that kube-proxy has not written yet differs, too. Where an agent on this node answers,
it tells what of that is drift, and since when; --history has its word on the last
changes of the Service's rules. All else is read here, and needs what the agent needs:
UID 0 and CAP_NET_ADMIN in the node's network namespace. Rules of the iptables mode
are explained; in other modes what the API wants and connection tracking has is told.

Lines are at most 100 columns long; wide does not break them.`

const explainExamples = `  # the way of connections to web in the namespace shop
  svcscope explain -n shop web

  # one port, and the commands that show the same numbers
  svcscope explain -n kube-system kube-dns:dns --commands

  # with the last changes of its rules
  svcscope explain shop/web --history

  # again every 2 seconds
  svcscope explain -n shop web --watch

  # endpoints that get more than they should, for a script
  svcscope explain -n shop web -o json | jq '.paths[].chains[].shares[]? | select(.real > 2 * .wanted)'`

type explainOptions struct {
	query    explain.Query
	source   sourceOptions
	commands bool
	watch    bool
	history  bool
	interval time.Duration
	format   string
}

func newExplain(e *env) *cobra.Command {
	var o explainOptions
	o.source.direct = agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:     "explain [NAMESPACE/]SERVICE[:PORT]",
		Short:   "The way of connections to a Service through this node's rules",
		Long:    explainHelp,
		Example: explainExamples,
		Args:    cobra.ExactArgs(1),
	}
	namespace := cmd.Flags().StringP("namespace", "n", "default", "the Service's namespace")
	cmd.Flags().BoolVar(&o.commands, "commands", false, "below each number a command that shows the same one")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "again and again, until it is interrupted")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "time between two looks with --watch")
	cmd.Flags().BoolVar(&o.history, "history", false, "the last changes of its rules too, as the agent on this node has seen them")
	cmd.Flags().StringVar(&o.source.agent, "agent", defaultAgent,
		"`URL` of the agent on this node, which knows since when rules differ and their history, instead of $"+agentEnv+`; "none" asks none`)
	fromFlag(cmd, &o.source)
	kube := kubeFlags(cmd, &o.source.direct)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sel := selection(args[0], *namespace)
		o.query = explain.Query{Service: service.Name{Namespace: sel.Namespace, Name: sel.Name}, Port: sel.Port}
		o.format, o.source.direct.Kube = output.value, agent.KubeMode(kube.value)
		o.source.clash = o.source.clashing(cmd)
		if o.source.explicit = cmd.Flags().Changed("agent"); !o.source.explicit {
			o.source.agent = cmp.Or(e.getenv(agentEnv), o.source.agent)
		}
		switch {
		case sel.Name == "":
			return &usageError{fmt.Errorf("%q names no Service", args[0])}
		case o.history && o.source.agent == noAgent && o.source.from == "":
			return &usageError{errors.New("--history is what an agent has seen: not with --agent none")}
		case o.interval <= 0:
			return &usageError{errors.New("--interval must be more than 0")}
		case o.watch && o.source.from != "":
			return &usageError{errors.New("--watch follows a node: not with --from")}
		}
		return runExplain(cmd.Context(), e, o)
	}
	return cmd
}

// runExplain explains once, or until ctx ends.
func runExplain(ctx context.Context, e *env, o explainOptions) error {
	err := explainOnce(ctx, e, o)
	if !o.watch {
		return err
	}
	quiet := *e
	quiet.stderr = io.Discard // where it is read from was said
	for err == nil {
		if err = e.sleep(ctx, o.interval); err == nil {
			err = explainOnce(ctx, &quiet, o)
		}
	}
	if ctx.Err() != nil {
		return nil // it was interrupted
	}
	return err
}

// explainOnce reads the node and prints what it holds of the Service.
func explainOnce(ctx context.Context, e *env, o explainOptions) error {
	node, err := readNode(ctx, e, o.source)
	if err != nil {
		return err
	}
	report, err := explain.New(node, o.query)
	switch {
	case err != nil && node.Catalog == nil:
		return withRemedy(err, "give svcscope the API, which knows the Services: --kubeconfig file")
	case err != nil:
		return err
	}
	if report.Differs() {
		recallDrift(ctx, e, o.source, report)
	}
	all := explained{Report: report}
	if o.history {
		changes, err := readHistory(ctx, e, &o, report)
		if err != nil {
			return err
		}
		all.History = &changes
	}
	if o.format == formatJSON || o.format == formatYAML {
		return writeObject(e.stdout, o.format, all)
	}
	return writeExplained(e, o, &all)
}

// explained is what -o json prints.
type explained struct {
	*explain.Report
	// History is absent where it was not asked for.
	History *[]correlate.RuleChangeReport `json:"history,omitempty"`
}

// writeExplained prints it as text.
func writeExplained(e *env, o explainOptions, all *explained) error {
	tty := e.terminal()
	out := explain.Options{Width: lineWidth, Commands: o.commands, Dim: tty}
	if o.format == formatWide {
		out.Width = 0
	}
	if o.watch && tty {
		if err := clearScreen(e.stdout); err != nil {
			return err
		}
	}
	if err := explain.Write(e.stdout, all.Report, out); err != nil || all.History == nil {
		return err
	}
	return writeHistory(e.stdout, *all.History, out.Width)
}
