// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/correlate"
)

const servicesHelp = `Services of this node with what its kernel counted for them, one line a Service
port and IP family.

An agent on this node is asked first; its counts are totals since it began to
count, and SINCE is how long ago that was. Where none answers, the kernel's
rules are read directly and each count is since kube-proxy last wrote that rule.
A line on standard error says which it is, and why no agent. SVCSCOPE_AGENT in
the environment names the agent's URL where it is not the usual one. With
--agent, which wins, the kernel is not read instead.

An agent with TLS or a password is asked by https://USER:PASSWORD@HOST:PORT,
which is best put into SVCSCOPE_AGENT; SSL_CERT_FILE names its authority.

  CONNECTIONS   new connections sent to an endpoint; wide splits them in CLUSTER
                (by the cluster address) and EXTERNAL (by a node port, external
                or load-balancer address)
  REJECTED      packets that kube-proxy's rules refused for the Service
  ENDPOINTS     in this kernel's rules / given to this node by the API; "?" is
                not known
  RULES         wide: rules that the Service costs this node, in all tables

All namespaces are listed unless -n names one. Services without a cluster IP
(headless, ExternalName) are in no node's rules and are not listed.`

const servicesExamples = `  # every Service on this node
  svcscope services

  # one Service in one namespace, cluster and external connections apart
  svcscope services -n shop web -o wide

  # for a script
  svcscope services -o json | jq '.items[] | {name, connections}'`

// servicesOptions are the flags and arguments of `svcscope services`.
type servicesOptions struct {
	namespace     string
	allNamespaces bool
	names         []string // Services' names; empty: all
	source        sourceOptions
	format        string
}

func newServices(e *env) *cobra.Command {
	var o servicesOptions
	cmd := &cobra.Command{
		Use:     "services [NAME...]",
		Aliases: []string{"service", "svc"},
		Short:   "Services with their connections, refusals and endpoints on this node",
		Long:    servicesHelp,
		Example: servicesExamples,
		Args:    cobra.ArbitraryArgs,
	}
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "only this namespace")
	cmd.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false,
		"all namespaces, as without -n; wins over it")
	parsed := o.source.bind(cmd, e.getenv)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.names, o.format = args, output.value
		parsed()
		if o.allNamespaces {
			o.namespace = ""
		}
		return runServices(cmd.Context(), e, o)
	}
	return cmd
}

func servicesSource() reportSource[correlate.ServicesReport] {
	return reportSource[correlate.ServicesReport]{
		what: "services", head: func(r *correlate.ServicesReport) *correlate.ReportHead { return &r.ReportHead },
		make: correlate.NewServicesReport,
	}
}

// runServices prints the Services that o selects.
func runServices(ctx context.Context, e *env, o servicesOptions) error {
	report, err := readReport(ctx, e, o.source, servicesSource())
	if err != nil {
		return err
	}
	unread := unreadRules(&report, warnCollectors(e, &report.ReportHead))
	// What is known of the node is printed even where it is not all.
	var unknown error
	if len(report.Items) == 0 {
		unknown = unread
	}
	missing := filterServices(&report, o)
	switch {
	case o.format == formatJSON || o.format == formatYAML:
		err = writeObject(e.stdout, o.format, report)
	case len(report.Items) > 0:
		err = writeServices(e.stdout, &report, o)
		noteUncounted(e, &report, unread)
	case len(missing) == 0 && unknown == nil:
		fmt.Fprintln(e.stderr, noServices(&report, o.namespace))
	}
	if err != nil || unknown != nil {
		return cmp.Or(err, unknown)
	}
	where := "not on this node"
	if unread != nil && !report.Kube.Synced {
		where = "not in the rules that could be read"
	}
	var errs []error
	for _, name := range missing {
		errs = append(errs, fmt.Errorf("find service %s: %s", objectName(o.namespace, name), where))
	}
	return errors.Join(errs...)
}

// warnCollectors says on stderr which sources could not be read, and returns
// those of rules among them.
func warnCollectors(e *env, r *correlate.ReportHead) (rules []correlate.CollectorReport) {
	for _, c := range r.Collectors {
		if c.Success || c.Name == "kube" && !r.Kube.Synced { // the source line has it
			continue
		}
		fmt.Fprintf(e.stderr, "warning: %s: %s\n", c.Name, cmp.Or(c.Error, "not read yet"))
		if c.Name == "nftables" || c.Name == "legacy" {
			rules = append(rules, c)
		}
	}
	return rules
}

// unreadRules is why the rules may hold Services that r does not; nil: they do
// not. failed are the sources of rules that could not be read. Without
// Services it would be wrong to say then that there are none.
func unreadRules(r *correlate.ServicesReport, failed []correlate.CollectorReport) error {
	program := "svcscope"
	if r.Source == correlate.SourceAgent {
		program = "the agent"
	}
	if len(failed) > 0 {
		err := errors.New("list services: unknown, as rules could not be read")
		for _, c := range failed {
			// The collector's error has come as text, maybe from an agent.
			if strings.Contains(c.Error, capNetAdmin) {
				return withRemedy(err, capabilityRemedy(program, capNetAdmin))
			}
		}
		return err
	}
	if r.ProxyMode == "ipvs" && !r.Kube.Synced { // the rules of the others name Services
		return withRemedy(fmt.Errorf("list services: unknown, as kube-proxy works in %s mode here, "+
			"whose rules are not understood yet", r.ProxyMode),
			"give "+program+" the API, which knows the Services: --kubeconfig file")
	}
	return nil
}

// filterServices drops from r what o does not select, and returns those of
// o.names that are not there. The sums of _other cannot be told apart by
// namespace or name, so they go with any selection.
func filterServices(r *correlate.ServicesReport, o servicesOptions) (missing []string) {
	found := make(map[string]bool, len(o.names))
	r.Items = slices.DeleteFunc(r.Items, func(s correlate.ServiceReport) bool {
		if o.namespace != "" && s.Namespace != o.namespace {
			return true
		}
		if len(o.names) > 0 && !slices.Contains(o.names, s.Name) {
			return true
		}
		found[s.Name] = true
		return false
	})
	if o.namespace != "" || len(o.names) > 0 {
		r.Other = nil
	}
	for _, name := range o.names {
		if !found[name] && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// noteUncounted explains the lines without a count, one line a reason; unread
// is why some have unread rules.
func noteUncounted(e *env, r *correlate.ServicesReport, unread error) {
	lines := map[correlate.Uncounted]int{}
	for i := range r.Items {
		lines[r.Items[i].Uncounted]++
	}
	if lines[correlate.UncountedMode] > 0 {
		fmt.Fprintf(e.stderr, "note: kube-proxy works in %s mode here: connections are not counted in this mode yet\n",
			r.ProxyMode)
	}
	if n := lines[correlate.UncountedUnread]; n > 0 {
		fmt.Fprintf(e.stderr, "note: lines without a count (%d): their rules could not be read\n", n)
		if what := remedy(unread); what != "" {
			fmt.Fprintf(e.stderr, "  %s\n", what)
		}
	}
	if n := lines[correlate.UncountedCap]; n > 0 {
		fmt.Fprintf(e.stderr, "note: lines without a count (%d) are above the agent's --metrics.max-services: "+
			"counted together as _other\n", n)
	}
	if r.ProxyMode == "none" {
		fmt.Fprintln(e.stderr, "note: "+noRules)
	}
}

// noRules is said where a kernel without kube-proxy's rules was read: of a node
// without kube-proxy, or of a pod's network namespace.
const noRules = "no rules of kube-proxy are in this network namespace"

func noServices(r *correlate.ServicesReport, namespace string) string {
	switch {
	case namespace != "":
		return fmt.Sprintf("No Services found in namespace %s on this node.", namespace)
	case r.ProxyMode == "none":
		return "No Services found on this node: " + noRules + "."
	}
	return "No Services found on this node."
}

func objectName(namespace, name string) string {
	return strings.TrimPrefix(namespace+"/"+name, "/")
}
