// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/agent"
)

const agentHelp = `Reads this node's rules, counters and connection tracking at an interval, joins
them with the API's Services, and serves the result:

  /metrics             for Prometheus
  /api/v1/services     JSON, what "svcscope services" prints
  /api/v1/conntrack    JSON, what "svcscope conntrack" prints
  /api/v1/drops        JSON, what "svcscope drops" prints
  /healthz, /readyz    on the health address

It needs UID 0 and CAP_NET_ADMIN in the node's network namespace, and nothing
else. Without them it serves what is left: the size of connection tracking, and
what the API says. It changes no rule and starts no process; with --nflog.group it
reads groups of NFLOG that nobody else does.
SIGTERM stops it gracefully.

The API's user needs the role in deploy/clusterrole.yaml, and for --kube.pods,
--kube.policies and --kube.events the rules that are told there. A kubelet's
kubeconfig is not enough: a kubelet may not list EndpointSlices.`

const agentExamples = `  # on a node, with the API; the user needs the role in deploy/clusterrole.yaml
  svcscope agent --kubeconfig /etc/svcscope/kubeconfig

  # without the API: names come from the rules' comments
  svcscope agent --kube=never`

func newAgent(e *env) *cobra.Command {
	c := agent.DefaultConfig()
	var logs logOptions
	cmd := &cobra.Command{
		Use:     "agent",
		Short:   "Watch this node's kernel and export what it does as Prometheus metrics",
		Long:    agentHelp,
		Example: agentExamples,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.ListenAddresses, "web.listen-address", c.ListenAddresses,
		"`address` for metrics and API, host:port; may be given more than once")
	f.StringVar(&c.HealthAddress, "web.health-address", c.HealthAddress,
		"`address` for /healthz and /readyz, without TLS or authentication; empty: none")
	f.StringVar(&c.WebConfigFile, "web.config.file", c.WebConfigFile,
		"`file` that enables TLS or authentication, in the format of Prometheus' exporter-toolkit")
	api := choiceFlag(cmd, "web.api", "who may read /api/v1: loopback: clients on this node, not through a proxy; all; never",
		string(agent.APILoopback), string(agent.APIAll), string(agent.APINever))
	kube := kubeFlags(cmd, &c)
	f.DurationVar(&c.StartJitter, "kube.start-jitter", c.StartJitter,
		"longest random delay before the first list, so that a fleet does not ask at once")
	podFlags(cmd, &c)
	f.BoolVar(&c.KubeEvents, "kube.events", c.KubeEvents,
		"write Events of pods of this node that lose packets to network policies, one a pod, policy and 5 minutes at most; needs --kube.pods")
	f.DurationVar(&c.Interval, "interval", c.Interval, "time between two readings of the kernel")
	f.DurationVar(&c.ConntrackInterval, "conntrack.interval", c.ConntrackInterval,
		"time between two readings of all entries of connection tracking, longer where one takes more than 2 % of it; 0: never")
	f.BoolVar(&c.Endpoints, "metrics.endpoints", c.Endpoints, "export connections by endpoint too")
	f.BoolVar(&c.Policies, "metrics.policies", c.Policies, "export packets refused by network policies, by policy and pod, too")
	f.IntVar(&c.MaxServices, "metrics.max-services", c.MaxServices,
		"Services with series of their own; the others are summed in service_name=\"_other\"")
	f.IntVar(&c.MaxRules, "exact.max-rules", c.MaxRules,
		"listen to changes of nf_tables, so that no count is lost in a rewrite, while there are at most so many rules (jumps count twice); 0: never")
	f.StringVar(&c.LockFile, "legacy.lock-file", c.LockFile,
		"the lock `file` of iptables-legacy, watched where it is there; empty: not watched")
	f.StringVar(&c.NFLOGGroup, "nflog.group", c.NFLOGGroup,
		"`groups` of NFLOG to read, numbers with commas; auto: those that rules log to and that nobody has held for 10 minutes; none")
	f.DurationVar(&c.DriftGrace, "drift.grace", c.DriftGrace,
		"how long kube-proxy has at least to write what the API has changed; differences that a change of the API explains are no drift until then")
	f.BoolVar(&c.Tap, "tap", c.Tap,
		"count what is sent to Services, and what rules of kube-proxy refuse, in an nf_tables table of the agent's own (Linux 5.12); its elements count toward --exact.max-rules")
	logs.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.API = agent.APIExposure(api.value)
		c.Kube = agent.KubeMode(kube.value)
		c.Logger = logs.logger(e.stderr)
		return runAgent(cmd.Context(), e, c)
	}
	return cmd
}

// podFlags adds the flags of what tells of refused packets: whose they are, and how
// others' addresses are told.
func podFlags(cmd *cobra.Command, c *agent.Config) {
	f := cmd.Flags()
	f.BoolVar(&c.KubePods, "kube.pods", c.KubePods, "watch the pods of this node, to tell of them by name where packets are refused")
	f.BoolVar(&c.KubePolicies, "kube.policies", c.KubePolicies,
		"watch the names of all NetworkPolicies, to tell of those that a log prefix has as a hash alone")
	f.BoolVar(&c.AnonymizeDrops, "drops.anonymize", c.AnonymizeDrops,
		"mask addresses in events that are neither a pod's, this node's nor a Service's: the network alone is told, 10.1.2.x or 2001:db8:1::x")
}

// kubeFlags adds the flags of everything that joins the API.
func kubeFlags(cmd *cobra.Command, c *agent.Config) *choice {
	kube := choiceFlag(cmd, "kube",
		"join the Kubernetes API: where a kubeconfig or a service account is found; always (it is an error that neither is); never",
		string(agent.KubeAuto), string(agent.KubeAlways), string(agent.KubeNever))
	cmd.Flags().StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig,
		"`file` that says how to reach the API; empty: as a pod does, by its service account")
	cmd.Flags().StringVar(&c.NodeName, "node-name", c.NodeName,
		"this node's `name` in the API; empty: $NODE_NAME, then the host name")
	return kube
}

// runAgent completes c from the environment and runs the agent until ctx ends.
func runAgent(ctx context.Context, e *env, c agent.Config) error {
	name, err := nodeName(e, c.NodeName)
	if err != nil {
		return err
	}
	c.NodeName = name
	if err := c.Validate(); err != nil {
		return &usageError{err}
	}
	return e.runAgent(ctx, c)
}

// nodeName is the flag, $NODE_NAME or the host's name, which is what the
// kubelet registers by default.
func nodeName(e *env, flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if name := e.getenv("NODE_NAME"); name != "" {
		return name, nil
	}
	name, err := e.hostname()
	if err != nil {
		return "", withRemedy(fmt.Errorf("read host name: %w", err), "give the node's name with --node-name")
	}
	return name, nil
}
