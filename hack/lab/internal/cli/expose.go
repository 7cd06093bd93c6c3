// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
	"github.com/svcscope/svcscope/hack/lab/internal/instance"
)

type exposeOptions struct {
	e            cluster.Exposure
	name, output string
	pods         string
	wait         bool
}

func exposeCommand() *cobra.Command {
	var o exposeOptions
	cmd := &cobra.Command{
		Use:   "expose SERVICE --port PORT",
		Short: "Make or change a Service and its EndpointSlices, and wait for the rules",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !inside() {
				return relay(o.name, "lan")
			}
			o.e.Name = args[0]
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	nameFlag(cmd, &o.name)
	f.StringVarP(&o.e.Namespace, "namespace", "n", "default", "Kubernetes namespace, made if it is not there")
	f.IntVar(&o.e.Port, "port", 0, "the Service's port")
	f.StringVar(&o.e.PortName, "port-name", "", "name of the port")
	f.IntVar(&o.e.TargetPort, "target-port", 0, "the endpoints' port (default 8080, with UDP 5353)")
	f.StringVar(&o.e.Protocol, "protocol", "TCP", "TCP, UDP or SCTP")
	f.StringVar(&o.e.Type, "type", "", "ClusterIP, NodePort or LoadBalancer (default: what the other flags need)")
	f.IntVar(&o.e.NodePort, "node-port", 0, "node port; 0 lets the API server choose")
	f.StringVar(&o.pods, "pods", "pod1", "endpoints: names of pods, addresses on another node, or none")
	f.StringVar(&o.e.Families, "ip-families", "dual", "dual, v4 or v6")
	f.StringSliceVar(&o.e.ClusterIPs, "cluster-ip", nil, "cluster IPs, the first family's first")
	f.BoolVar(&o.e.Affinity, "affinity", false, "sessionAffinity: ClientIP")
	f.StringVar(&o.e.ExternalPolicy, "external-traffic-policy", "", "Cluster or Local")
	f.StringVar(&o.e.InternalPolicy, "internal-traffic-policy", "", "Cluster or Local")
	f.StringSliceVar(&o.e.ExternalIPs, "external-ip", nil, "external IPs")
	f.StringSliceVar(&o.e.LoadBalancerIPs, "load-balancer-ip", nil, "addresses in the status of a LoadBalancer")
	f.StringSliceVar(&o.e.SourceRanges, "source-range", nil, "loadBalancerSourceRanges")
	f.BoolVar(&o.wait, "wait", true, "wait until kube-proxy has written the rules")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	_ = cmd.MarkFlagRequired("port")
	return cmd
}

func (o *exposeOptions) complete() {
	e := &o.e
	e.Protocol = strings.ToUpper(e.Protocol)
	if e.TargetPort == 0 {
		e.TargetPort = 8080
		if e.Protocol == "UDP" {
			e.TargetPort = 5353
		}
	}
	if e.Type == "" {
		switch {
		case len(e.LoadBalancerIPs)+len(e.SourceRanges) > 0:
			e.Type = "LoadBalancer"
		case e.NodePort != 0 || e.ExternalPolicy != "":
			e.Type = "NodePort"
		default:
			e.Type = "ClusterIP"
		}
	}
	if o.pods != "none" {
		e.Endpoints = splitList(o.pods)
	}
}

func (o *exposeOptions) run(ctx context.Context, w io.Writer) error {
	o.complete()
	c, rules, err := connect(o.name)
	if err != nil {
		return err
	}
	ex, err := o.e.Apply(ctx, c)
	if err != nil {
		return err
	}
	if o.wait {
		if err := rules.WaitFor(ctx, o.e, ex); err != nil {
			return err
		}
	}
	if o.output == "json" {
		return writeJSON(w, ex)
	}
	fmt.Fprintf(w, "service %s/%s: %s port %d", ex.Namespace, ex.Name, strings.Join(ex.ClusterIPs, " "), ex.Port)
	if ex.NodePort != 0 {
		fmt.Fprintf(w, ", node port %d", ex.NodePort)
	}
	_, err = fmt.Fprintln(w)
	return err
}

func unexposeCommand() *cobra.Command {
	var name, namespace string
	var wait bool
	cmd := &cobra.Command{
		Use: "unexpose SERVICE", Short: "Remove a Service and its EndpointSlices, and wait for the rules",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !inside() {
				return relay(name, "lan")
			}
			c, rules, err := connect(name)
			if err != nil {
				return err
			}
			if err := cluster.Unexpose(cmd.Context(), c, namespace, args[0]); err != nil || !wait {
				return err
			}
			return rules.WaitGone(cmd.Context(), namespace, args[0])
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "Kubernetes namespace")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until kube-proxy has removed the rules")
	return cmd
}

// connect returns a client of the lab's API server and a reader of its
// node's rules.
func connect(name string) (*cluster.Client, cluster.Rules, error) {
	state, err := instance.Of(name)
	if err != nil {
		return nil, cluster.Rules{}, err
	}
	var cfg instance.Config
	if err := instance.ReadJSON(state.Path("config.json"), &cfg); err != nil {
		return nil, cluster.Rules{}, fmt.Errorf("lab %s: %w", name, err)
	}
	if cfg.ControlPlane != "real" {
		return nil, cluster.Rules{}, fmt.Errorf("lab %s has no control plane: start it with --control-plane real", name)
	}
	c, err := cluster.NewClient(os.Getenv("KUBECONFIG"))
	return c, cluster.Rules{Node: "node1", ProxyMode: cfg.ProxyMode}, err
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
