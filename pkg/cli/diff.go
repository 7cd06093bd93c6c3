// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/nodediff"
)

const diffHelp = `It works on node A and not on node B: what differs between the snapshots of two nodes.
First what concerns all Services: proxy mode, backend, kernel, sysctls, policies
and rules of built-in chains, kube-proxy's own chains, rules of others that refuse
packets. Then each Service port in each IP family: what the API wanted, what becomes
of packets to its addresses, endpoints, rules of its chains, drift.

Counters, handles and the order of rules in chains of all Services are chance and no
difference, nor are a node's own addresses and the range of its pods. What the API has
given to each node in its own way is told as explained: by policy, where a policy is
Local or endpoints have hints; by API, where the API had changed in between.

  -  only in A, or as A has it
  +  only in B, or as B has it

Rules of Services are compared in kube-proxy's iptables mode. In nftables and IPVS
mode the rest is, and the output says what is not compared, as it does of rules that
could not be read: nothing is taken to be the same that was not looked at.

The exit status is 0 when nothing differs but what is explained, 1 when something
does or when not all could be compared, and 2 when the command line cannot be
understood.`

const diffExamples = `  # two nodes, on each of them
  svcscope snapshot > node-a.tgz

  # anywhere: the node, and one Service
  svcscope diff node-a.tgz node-b.tgz shop/web

  # one port; what is left unexplained, for a script
  svcscope diff node-a.tgz node-b.tgz -n shop web:http -o json | jq '.services[].differences[] | select(.explained == null)'`

type diffOptions struct {
	a, b   string
	sel    nodediff.Selection
	format string
}

func newDiff(e *env) *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:     "diff A B [[NAMESPACE/]SERVICE[:PORT]]",
		Short:   "What differs between the snapshots of two nodes",
		Long:    diffHelp,
		Example: diffExamples,
		Args:    cobra.RangeArgs(2, 3),
	}
	cmd.Flags().StringVarP(&o.sel.Namespace, "namespace", "n", "default", "the Service's namespace")
	output := &choice{value: formatTable, allowed: []string{formatTable, formatJSON, formatYAML}}
	cmd.Flags().VarP(output, "output", "o", "output format")
	completeWords(cmd, "output", output.allowed)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.a, o.b, o.format = args[0], args[1], output.value
		if o.a == standardInput && o.b == standardInput {
			return &usageError{errors.New("both snapshots cannot be on standard input")}
		}
		if len(args) == 3 {
			o.sel = selection(args[2], o.sel.Namespace)
			if o.sel.Name == "" {
				return &usageError{fmt.Errorf("%q names no Service", args[2])}
			}
		}
		return runDiff(cmd.Context(), e, o)
	}
	return cmd
}

// selection reads [NAMESPACE/]SERVICE[:PORT].
func selection(text, namespace string) nodediff.Selection {
	name, port, _ := strings.Cut(text, ":")
	if before, after, ok := strings.Cut(name, "/"); ok {
		namespace, name = before, after
	}
	return nodediff.Selection{Namespace: namespace, Name: name, Port: port}
}

// errDiffer and errNotCompared are why the exit status is 1; the output has said what it is.
var (
	errDiffer      = errors.New("compare snapshots: they differ")
	errNotCompared = errors.New("compare snapshots: not all could be compared")
)

func runDiff(_ context.Context, e *env, o diffOptions) error {
	a, err := openSnapshot(e, o.a)
	if err != nil {
		return err
	}
	b, err := openSnapshot(e, o.b)
	if err != nil {
		return err
	}
	if a.Mask != b.Mask {
		return withRemedy(errors.New("compare snapshots: their addresses are not masked in the same way"),
			"mask both with the same --mask-key-file, or none")
	}
	fmt.Fprintf(e.stderr, "A: %s\nB: %s\n", snapshotText(o.a, a), snapshotText(o.b, b))
	for _, s := range []*capture.Snapshot{a, b} {
		if s.Node.Catalog == nil {
			fmt.Fprintf(e.stderr, "note: what the API wants on node %s is not known: nothing can be explained by it\n", printable(s.Node.Name))
		}
	}
	report, err := nodediff.Compare(a.Node, b.Node, o.sel)
	if errors.Is(err, nodediff.ErrNoService) {
		name := objectName(o.sel.Namespace, o.sel.Name)
		err = fmt.Errorf("find service %s: %w", strings.TrimSuffix(name+":"+o.sel.Port, ":"), err)
		if a.Node.Catalog == nil || b.Node.Catalog == nil {
			err = withRemedy(err, "take the snapshots where the API is known, which has all Services: --kubeconfig file")
		}
		return err
	}
	if err != nil {
		return err
	}
	if o.format == formatTable {
		err = writeDiff(e.stdout, report)
	} else {
		err = writeObject(e.stdout, o.format, report)
	}
	var differ error
	switch {
	case report.Differ():
		differ = errDiffer
	case !report.Same:
		differ = errNotCompared
	}
	return cmp.Or(err, differ)
}
