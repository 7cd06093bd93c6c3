// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const conntrackHelp = `Connection tracking on this node: how full its table is and when it will be full,
what it has lost and why, who fills it, and what in it leads nowhere.

An agent on this node is asked first. Where none answers, the kernel is read
directly: forecast and losses need more than one reading, and are then unknown.
A line on standard error says which it is.

  TABLE      entries, their limit, the highest number of the last minute,
             and when the table will be full if it goes on filling as it does
  LOSSES     packets lost since the agent began to count, by cause:
               table_full  no room, or entries evicted for it: raise nf_conntrack_max
               ports       masquerading found no free source port
               clash       two packets made the same entry (often DNS over UDP)
               chain       too few buckets for the number of entries
               other       refused by a protocol's tracker, or no memory
  ENTRIES    what the entries are there for: a Service's address, an endpoint
             reached without one (another node sent it here), a pod of this
             node on its way out, the node itself, what something else
             redirects (a host port, a deleted Service), or nothing known
  services   ENTRIES = REPLIED + UNREPLIED + CLOSING; STALE lead to an address
             that is no endpoint any more; UNANSWERED toward an endpoint on
             this node / on another node from which nothing came back
  ports      destinations toward which masqueraded connections take most of
             the 64512 source ports

The table has the 20 Services with most entries; wide has all.`

const conntrackExamples = `  # what fills the table, and what it has lost
  svcscope conntrack

  # one namespace's Services
  svcscope conntrack -n shop

  # entries that lead nowhere, for a script
  svcscope conntrack -o json | jq '.entries.services[] | select(.stale > 0)'`

type conntrackOptions struct {
	namespace string
	source    sourceOptions
	format    string
}

func newConntrack(e *env) *cobra.Command {
	var o conntrackOptions
	cmd := &cobra.Command{
		Use:     "conntrack",
		Aliases: []string{"ct"},
		Short:   "Connection tracking: pressure, losses, who fills the table, what is stale",
		Long:    conntrackHelp,
		Example: conntrackExamples,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "only Services of this namespace")
	parsed := o.source.bind(cmd, e.getenv)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.format = output.value
		parsed()
		return runConntrack(cmd.Context(), e, o)
	}
	return cmd
}

func conntrackSource() reportSource[correlate.ConntrackReport] {
	return reportSource[correlate.ConntrackReport]{
		what: "conntrack", head: func(r *correlate.ConntrackReport) *correlate.ReportHead { return &r.ReportHead },
		make: correlate.NewConntrackReport,
	}
}

func runConntrack(ctx context.Context, e *env, o conntrackOptions) error {
	o.source.entries = true
	report, err := readReport(ctx, e, o.source, conntrackSource())
	if err != nil {
		return err
	}
	warnCollectors(e, &report.ReportHead)
	if o.namespace != "" && report.Entries != nil {
		report.Entries.Services = slices.DeleteFunc(report.Entries.Services, func(s correlate.ServiceEntriesReport) bool {
			return s.Namespace != o.namespace
		})
	}
	if o.format == formatJSON || o.format == formatYAML {
		err = writeObject(e.stdout, o.format, report)
	} else {
		err = writeConntrack(e.stdout, &report, o)
	}
	if err == nil && report.Table == nil && report.Entries == nil {
		err = errors.New("read connection tracking: nothing of it could be read")
	}
	return err
}
