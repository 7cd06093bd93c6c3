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
A line on standard error says which it is. With --agent the kernel is not read
instead.

  CONNECTIONS   new connections sent to an endpoint; wide splits them in CLUSTER
                (by the cluster address) and EXTERNAL (by a node port, external
                or load-balancer address)
  REJECTED      packets that kube-proxy's rules refused for the Service
  ENDPOINTS     in this kernel's rules / given to this node by the API; "?" is
                not known
  RULES         wide: rules that the Service costs this node, in all tables

All namespaces are listed unless -n names one.`

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
	parsed := o.source.bind(cmd)
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

// runServices prints the Services that o selects.
func runServices(ctx context.Context, e *env, o servicesOptions) error {
	report, err := readServices(ctx, e, o.source)
	if err != nil {
		return err
	}
	unread := warnCollectors(e, &report)
	if len(report.Items) > 0 {
		unread = nil // some rules were read
	}
	missing := filterServices(&report, o)
	switch {
	case o.format == formatJSON || o.format == formatYAML:
		err = writeObject(e.stdout, o.format, report)
	case len(report.Items) > 0:
		err = writeServices(e.stdout, &report, o)
		noteUncounted(e, &report)
	case len(missing) == 0 && unread == nil:
		fmt.Fprintln(e.stderr, noServices(o.namespace))
	}
	if err != nil || unread != nil {
		return cmp.Or(err, unread)
	}
	var errs []error
	for _, name := range missing {
		errs = append(errs, fmt.Errorf("find service %s: not on this node", objectName(o.namespace, name)))
	}
	return errors.Join(errs...)
}

// warnCollectors says on stderr which sources could not be read. The error is
// for rules among them: without Services it would be wrong to say that there
// are none.
func warnCollectors(e *env, r *correlate.ServicesReport) (unread error) {
	for _, c := range r.Collectors {
		if c.Success || c.Name == "kube" && !r.Kube.Synced { // the source line has it
			continue
		}
		fmt.Fprintf(e.stderr, "warning: %s: %s\n", c.Name, cmp.Or(c.Error, "not read yet"))
		if c.Name == "nftables" || c.Name == "legacy" {
			unread = errors.New("list services: unknown, as rules could not be read")
			// The collector's error has come as text, maybe from an agent.
			if strings.Contains(c.Error, capNetAdmin) {
				unread = withRemedy(unread, capabilityRemedy(capNetAdmin))
			}
		}
	}
	return unread
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

// noteUncounted explains the lines without a count, one line a reason.
func noteUncounted(e *env, r *correlate.ServicesReport) {
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
	}
	if n := lines[correlate.UncountedCap]; n > 0 {
		fmt.Fprintf(e.stderr, "note: lines without a count (%d) are above the agent's --metrics.max-services: "+
			"counted together as _other\n", n)
	}
}

func noServices(namespace string) string {
	if namespace == "" {
		return "No Services found on this node."
	}
	return fmt.Sprintf("No Services found in namespace %s on this node.", namespace)
}

func objectName(namespace, name string) string {
	return strings.TrimPrefix(namespace+"/"+name, "/")
}
