// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/service"
)

const watchHelp = `Connections to a Service through this node, as they begin and end, one line
each, until it is interrupted:

  TIME          CHANGE       CLIENT → THE SERVICE'S ADDRESS → ENDPOINT

It listens to the events of connection tracking itself, and needs what the agent
needs: UID 0 and CAP_NET_ADMIN in the node's network namespace. While it runs the
kernel does a little more for each new connection of all namespaces. Where
connections come faster than it can read, some are lost, and a line on standard
error says so.

A connection is there once its first packet has left the node: what a policy
drops before is not seen, and neither is a client that reaches an endpoint
without the Service's address. One that began before the command may have no end
here.`

const watchExamples = `  # connections to web in the namespace shop
  svcscope watch -n shop web

  # one of its ports, with every change of state
  svcscope watch -n shop web:http --all

  # a line of JSON each, for a script
  svcscope watch -n kube-system kube-dns -o json`

type watchOptions struct {
	namespace, name, port string
	all                   bool
	format                string
	direct                agent.Config
}

func newWatch(e *env) *cobra.Command {
	o := watchOptions{direct: agent.DefaultConfig()}
	cmd := &cobra.Command{
		Use:     "watch SERVICE[:PORT]",
		Short:   "Connections to a Service as they begin and end",
		Long:    watchHelp,
		Example: watchExamples,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "default", "the Service's namespace")
	cmd.Flags().BoolVar(&o.all, "all", false, "every change of state too")
	kube := kubeFlags(cmd, &o.direct)
	output := &choice{value: formatTable, allowed: []string{formatTable, formatJSON}}
	cmd.Flags().VarP(output, "output", "o", "output format")
	completeWords(cmd, "output", output.allowed)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.name, o.port, _ = strings.Cut(args[0], ":")
		o.format, o.direct.Kube = output.value, agent.KubeMode(kube.value)
		return runWatch(cmd.Context(), e, o)
	}
	return cmd
}

func runWatch(ctx context.Context, e *env, o watchOptions) error {
	node, err := nodeName(e, o.direct.NodeName)
	if err != nil {
		return err
	}
	o.direct.NodeName = node
	name := objectName(o.namespace, o.name)
	if o.port != "" {
		name += ":" + o.port
	}
	var failed error
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = e.watchFlows(ctx, o.direct, agent.FlowWatch{
		Service: service.Name{Namespace: o.namespace, Name: o.name}, Port: o.port,
		Started: func() {
			fmt.Fprintf(e.stderr, "watching connections to %s through this node\n", name)
		},
		Lost: func(err error) { fmt.Fprintf(e.stderr, "warning: connections were missed: %v\n", err) },
		Visit: func(f *agent.WatchedFlow) {
			if failed = writeFlow(e, f, o); failed != nil {
				stop() // nobody reads any more
			}
		},
	})
	if errors.Is(err, agent.ErrNoService) {
		return fmt.Errorf("find service %s: %w", name, err)
	}
	return errors.Join(err, failed)
}

// flowLine is a connection's change as -o json prints it.
type flowLine struct {
	Time      time.Time `json:"time"`
	Change    string    `json:"change"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	PortName  string    `json:"portName,omitempty"`
	Protocol  string    `json:"protocol"`
	Client    string    `json:"client"`
	Address   string    `json:"address"`
	Endpoint  string    `json:"endpoint"`
	Node      string    `json:"node,omitempty"`
	Source    string    `json:"source,omitempty"`
	Stale     bool      `json:"stale,omitempty"`
}

func writeFlow(e *env, f *agent.WatchedFlow, o watchOptions) error {
	if !o.all && f.Change != "new" && f.Change != "ended" {
		return nil
	}
	var line []byte
	if o.format == formatJSON {
		l := flowLine{
			Time: f.Time.UTC(), Change: f.Change, Namespace: f.Port.Namespace, Name: f.Port.Name.Name, PortName: f.Port.Port,
			Protocol: string(f.Port.Protocol), Client: f.Client.String(), Address: f.Frontend.String(), Endpoint: f.Endpoint.String(),
			Node: f.Node, Stale: f.Stale,
		}
		if f.Source.IsValid() {
			l.Source = f.Source.String()
		}
		b, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("format json: %w", err)
		}
		line = append(b, '\n')
	} else {
		line = fmt.Appendf(nil, "%s  %-11s  %s%s\n", f.Time.Format("15:04:05.000"), f.Change, f, flowNote(f))
	}
	if _, err := e.stdout.Write(line); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// flowNote is what is to be said beside the addresses.
func flowNote(f *agent.WatchedFlow) string {
	var notes []string
	if f.Node != "" {
		notes = append(notes, "on "+f.Node)
	}
	if f.Source.IsValid() {
		notes = append(notes, "masqueraded as "+f.Source.String())
	}
	if f.Stale {
		notes = append(notes, "no endpoint of it")
	}
	if len(notes) == 0 {
		return ""
	}
	return "  (" + strings.Join(notes, ", ") + ")"
}
