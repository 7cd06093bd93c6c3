// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const driftHelp = `Where this node's rules are not what kube-proxy should have made of the API's
Services, although it has had its time: one line each, the node's own first.

An agent on this node is asked first: it knows since when, and what kube-proxy is
about to write. Where none answers, the kernel and the API are read twice, 12
seconds apart, and what differs both times is told; a kube-proxy that takes longer
to write a change may still be at it. A line on standard error says which it is.

  SINCE     how long ago it was first seen
  SERVICE   namespace/name:port, or the node
  KIND      what is wrong; docs/drift.md tells of each what it does
  FRONTEND  the kind of address that is concerned
  DETAIL    an address, an endpoint, a chain or a rule; below it: what to do

The exit status is 0 when there is none, 1 when there is or when it cannot be told.`

const driftExamples = `  # is what the kernel does what the API wants?
  svcscope drift

  # one namespace
  svcscope drift -n shop

  # for a script: what is wrong with whom
  svcscope drift -o json | jq '.items[] | {kind, namespace, name, since}'`

type driftOptions struct {
	namespace string
	source    sourceOptions
	format    string
}

func newDrift(e *env) *cobra.Command {
	var o driftOptions
	cmd := &cobra.Command{
		Use:     "drift",
		Short:   "Where the rules are not what the API wants, since when, and what to do",
		Long:    driftHelp,
		Example: driftExamples,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "only Services of this namespace, and the node")
	parsed := o.source.bind(cmd, e.getenv)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.format = output.value
		parsed()
		return runDrift(cmd.Context(), e, o)
	}
	return cmd
}

// errDrift is why the exit status is 1; the table has said what it is.
var errDrift = errors.New("compare rules with the API: they differ")

func runDrift(ctx context.Context, e *env, o driftOptions) error {
	report, err := readDrift(ctx, e, o.source)
	if err != nil {
		return err
	}
	warnCollectors(e, &report.ReportHead)
	if o.namespace != "" {
		other := func(d correlate.DriftItem) bool { return d.Name != "" && d.Namespace != o.namespace }
		report.Items = slices.DeleteFunc(report.Items, other)
		report.Pending = slices.DeleteFunc(report.Pending, other)
	}
	switch {
	case o.format == formatJSON || o.format == formatYAML:
		err = writeObject(e.stdout, o.format, report)
	case len(report.Items) > 0:
		err = writeDrift(e.stdout, &report, e.now())
	case report.Unknown == "":
		fmt.Fprintln(e.stderr, "No drift: the rules are what the API wants.")
	}
	if err != nil {
		return err
	}
	notePending(e, &report)
	switch {
	case report.Unknown != "":
		return withRemedy(fmt.Errorf("compare rules with the API: unknown, as %s", unknownDrift(&report)), unknownRemedy(&report))
	case len(report.Items) > 0:
		return errDrift
	}
	return nil
}

// driftApart is between the two readings where no agent tells.
const driftApart = 12 * time.Second

func driftSource() reportSource[correlate.DriftReport] {
	return reportSource[correlate.DriftReport]{
		what: "drift", head: func(r *correlate.DriftReport) *correlate.ReportHead { return &r.ReportHead },
		make: correlate.NewDriftReport,
	}
}

// readDrift asks the agent or reads a snapshot, or compares twice.
func readDrift(ctx context.Context, e *env, o sourceOptions) (correlate.DriftReport, error) {
	first, err := readReport(ctx, e, o, driftSource())
	if err != nil || first.Source == correlate.SourceAgent || o.from != "" {
		return first, err
	}
	return confirmDrift(ctx, e, o, first)
}

// confirmDrift compares a second time: what differs both times is drift.
func confirmDrift(ctx context.Context, e *env, o sourceOptions, first correlate.DriftReport) (correlate.DriftReport, error) {
	if len(first.Pending) == 0 {
		return first, nil
	}
	fmt.Fprintf(e.stderr, "%d differences; comparing again in %v\n", len(first.Pending), driftApart)
	if err := e.sleep(ctx, driftApart); err != nil {
		return first, fmt.Errorf("compare rules with the API again: %w", err)
	}
	snapshot, err := readKernel(ctx, e, o)
	if err != nil {
		return first, err
	}
	second := correlate.NewDriftReport(snapshot)
	second.Source = correlate.SourceKernel
	second.Confirm(&first)
	return second, nil
}

// unknownDrift is why nothing is said of Services.
func unknownDrift(r *correlate.DriftReport) string {
	switch {
	case r.Unknown == correlate.RulesUnread:
		return "rules could not be read"
	case r.Unknown == "mode" && r.ProxyMode == "none":
		return "no rules of kube-proxy are here"
	case r.Unknown == "mode" && (r.ProxyMode == "iptables" || r.ProxyMode == ""):
		return "kube-proxy's rules are not recognised here"
	case r.Unknown == "mode":
		return fmt.Sprintf("kube-proxy's mode here is %s, whose rules are not compared yet", r.ProxyMode)
	case r.Kube.Error != "":
		return "the API is not followed: " + r.Kube.Error
	}
	return "the API is not followed"
}

func unknownRemedy(r *correlate.DriftReport) string {
	if r.Unknown == "api" && r.Source == correlate.SourceKernel {
		return "give the API: --kubeconfig file"
	}
	return ""
}

// notePending tells of differences that kube-proxy may yet remove.
func notePending(e *env, r *correlate.DriftReport) {
	if n := len(r.Pending); n > 0 && r.Unknown == "" {
		fmt.Fprintf(e.stderr, "note: differences that kube-proxy may be about to remove: %d\n", n)
	}
	for _, p := range r.KubeProxy {
		if p.PendingSince != nil {
			fmt.Fprintf(e.stderr, "note: a change of the API has waited for kube-proxy's %s rules for %s\n",
				p.IPFamily, duration.HumanDuration(max(0, r.Time.Sub(*p.PendingSince))))
		}
	}
}

// writeDrift prints a line for each, and below those of one kind what to do.
func writeDrift(w io.Writer, r *correlate.DriftReport, now time.Time) error {
	rows := [][]string{{"SINCE", "SERVICE", "FAMILY", "KIND", "FRONTEND", "DETAIL"}}
	for i := range r.Items {
		d := &r.Items[i]
		since := noValue
		if d.Since != nil {
			since = duration.HumanDuration(max(0, now.Sub(*d.Since)))
		}
		rows = append(rows, []string{since, driftOf(d), d.IPFamily, string(d.Kind), cmp.Or(d.Frontend, noValue), cmp.Or(d.Detail, noValue)})
	}
	if err := writeTable(w, rows); err != nil {
		return err
	}
	var b strings.Builder
	for i := range r.Items {
		d := &r.Items[i]
		if slices.IndexFunc(r.Items, func(o correlate.DriftItem) bool { return o.Kind == d.Kind }) == i {
			fmt.Fprintf(&b, "%s: %s\n", d.Kind, d.Remedy)
		}
	}
	if _, err := io.WriteString(w, "\n"+b.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// driftOf is the Service port of an item, or the node.
func driftOf(d *correlate.DriftItem) string {
	switch {
	case d.Name == "":
		return "the node"
	case d.PortName == "":
		return d.Namespace + "/" + d.Name + " " + d.Protocol
	}
	return d.Namespace + "/" + d.Name + ":" + d.PortName + " " + d.Protocol
}
