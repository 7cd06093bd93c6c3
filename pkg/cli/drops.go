// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const dropsHelp = `Packets that this node refuses: how many, by which rule, whose rule it is and toward
which Service, policy or pod, as far as that is known.

An agent on this node is asked first. Where none answers, the kernel is read
directly, and the numbers are those of the rules that stand now. A line on
standard error says which it is.

  EVENTS     where events come from; where none can, why
  GROUPS     groups of NFLOG to which rules log packets: how many came and were
             lost; of one that is not read, who holds it, or why it is left
  TAP        whether the agent counts in a table of its own (--tap)
  NOTES      who else refuses packets here without a rule that counts, and what
             events lack on this node
  rules      packets refused, each once, by reason, hook and owner of the rule
  policies   the same of rules that tell a network policy or a pod
  events     the last packets that rules have logged. A rule that only logs is
             told as "logged": whether the packet was refused is not known

With -f events are printed as they come, until it is interrupted:

  TIME  HOOK  REASON OWNER  FROM → TO  (Service, policy or pod, rule)

Where they come from, or why none do, and the notes are on standard error.

Where no agent answers, -f reads the groups itself, for as long as it runs, and
nobody else can read them meanwhile. Groups that somebody holds are left alone
until they are free.

With --tap, -f puts a table of its own into the kernel's nf_tables for as long as it
runs, and reads what that logs: packets toward Services which a rule is about to
refuse, 100 a second of each hook at most. No packet is changed. The table is gone
with the command, however it ends.

The flags --kube.pods, --kube.policies and --drops.anonymize are for that, too: an
agent has its own.`

const dropsExamples = `  # what is refused, and why
  svcscope drops

  # packets as they are refused
  svcscope drops -f

  # packets toward Services without endpoints, where no rule logs them
  svcscope drops -f --tap

  # those that were sent to a Service of a namespace, for a script
  svcscope drops -n shop -f -o json | jq .`

type dropsOptions struct {
	namespace string
	follow    bool
	source    sourceOptions
	format    string
}

func newDrops(e *env) *cobra.Command {
	var o dropsOptions
	cmd := &cobra.Command{
		Use:     "drops",
		Short:   "Packets that this node refuses: where, why, whose rule, toward which Service",
		Long:    dropsHelp,
		Example: dropsExamples,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "only what a Service, policy or pod of this namespace is told of")
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "events as they come")
	parsed := o.source.bind(cmd, e.getenv)
	podFlags(cmd, &o.source.direct)
	cmd.Flags().StringVar(&o.source.direct.NFLOGGroup, "nflog.group", o.source.direct.NFLOGGroup,
		"`groups` of NFLOG that -f reads without an agent, numbers with commas; auto: all that rules log to and nobody holds")
	cmd.Flags().BoolVar(&o.source.direct.Tap, "tap", false, "with -f: read this node's kernel, in a table of its own beside the rules")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.format = output.value
		parsed()
		if o.follow && o.format != formatTable && o.format != formatJSON {
			return &usageError{errors.New("-f has the formats table and json")}
		}
		if o.source.direct.AnonymizeDrops && o.source.agent != noAgent && !o.source.direct.Tap {
			return &usageError{errors.New("--drops.anonymize is for what this command reads itself, with --agent none: an agent has a flag of that name")}
		}
		if o.source.direct.Tap && !o.follow {
			return &usageError{errors.New("--tap is for -f: an agent taps with a flag of its own")}
		}
		if o.follow && o.source.from != "" {
			return &usageError{errors.New("-f follows a node: not with --from")}
		}
		if o.follow {
			return followDrops(cmd.Context(), e, o)
		}
		return runDrops(cmd.Context(), e, o)
	}
	return cmd
}

func dropsSource() reportSource[correlate.DropsReport] {
	return reportSource[correlate.DropsReport]{
		what: "drops", head: func(r *correlate.DropsReport) *correlate.ReportHead { return &r.ReportHead },
		make: func(s *correlate.Snapshot) correlate.DropsReport {
			r := correlate.NewDropsReport(s, nil, nil)
			for i := range r.Rules {
				r.Rules[i].Since = nil // the rules' own
			}
			return r
		},
	}
}

func runDrops(ctx context.Context, e *env, o dropsOptions) error {
	report, err := readReport(ctx, e, o.source, dropsSource())
	if err != nil {
		return err
	}
	warnCollectors(e, &report.ReportHead)
	if o.namespace != "" {
		only(&report, o.namespace)
	}
	if o.format == formatJSON || o.format == formatYAML {
		return writeObject(e.stdout, o.format, report)
	}
	return writeDrops(e.stdout, &report, o, e.now().Location())
}

// only leaves what a namespace has to do with.
func only(r *correlate.DropsReport, namespace string) {
	is := func(objects ...*correlate.ObjectReport) bool {
		return slices.ContainsFunc(objects, func(o *correlate.ObjectReport) bool { return o != nil && o.Namespace == namespace })
	}
	r.Rules = slices.DeleteFunc(r.Rules, func(d correlate.DropTotalReport) bool { return !is(d.Service) })
	r.Policies = slices.DeleteFunc(r.Policies, func(d correlate.PolicyDropReport) bool { return !is(d.Policy, d.Pod) })
	r.Witnessed = slices.DeleteFunc(r.Witnessed, func(d correlate.WitnessedReport) bool { return !is(d.Service) })
	r.Events = slices.DeleteFunc(r.Events, func(d correlate.DropEventReport) bool { return !ofNamespace(&d, namespace) })
}

// ofNamespace reports whether a Service, policy or pod of the namespace is told of.
func ofNamespace(d *correlate.DropEventReport, namespace string) bool {
	for _, o := range []*correlate.ObjectReport{d.Service, d.Policy, d.Pod, d.FromPod, d.ToPod} {
		if o != nil && o.Namespace == namespace {
			return true
		}
	}
	return namespace == ""
}
