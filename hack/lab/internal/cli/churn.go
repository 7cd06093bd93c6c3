// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
)

type churnOptions struct {
	e     cluster.Exposure
	churn cluster.Churn
	name  string
	pods  string
	names []string
}

func churnCommand() *cobra.Command {
	var o churnOptions
	cmd := &cobra.Command{
		Use:   "churn SERVICE… --pods POD,POD…",
		Short: "Change the endpoints of Services again and again, until Ctrl-C",
		Long: "At each step one of the endpoints goes, another each time, and the one that went before comes\n" +
			"back. A Service is one that `lab expose` made, with the same flags; it has all its endpoints\n" +
			"again at the end. Prints the number of steps.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !inside() {
				return relay(o.name, "lan")
			}
			o.names = args
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	nameFlag(cmd, &o.name)
	f.StringVarP(&o.e.Namespace, "namespace", "n", "default", "Kubernetes namespace")
	f.StringVar(&o.e.PortName, "port-name", "", "name of the port")
	f.IntVar(&o.e.TargetPort, "target-port", 8080, "the endpoints' port")
	f.StringVar(&o.e.Protocol, "protocol", "TCP", "TCP, UDP or SCTP")
	f.StringVar(&o.e.Families, "ip-families", "dual", "dual, v4 or v6")
	f.StringVar(&o.pods, "pods", "pod1,pod2", "endpoints, two or more: names of pods or addresses on another node")
	f.IntVar(&o.churn.Fillers, "fillers", 0, "change one of the first so many of `lab up --services` at each step too")
	f.DurationVar(&o.churn.Every, "every", time.Second, "time from one step to the next")
	return cmd
}

func (o *churnOptions) run(ctx context.Context, w io.Writer) error {
	if o.churn.Every <= 0 {
		return fmt.Errorf("--every %v: want more than 0", o.churn.Every)
	}
	c, _, err := connect(o.name)
	if err != nil {
		return err
	}
	o.e.Endpoints = splitList(o.pods)
	for _, name := range o.names {
		e := o.e
		e.Name = name
		o.churn.Services = append(o.churn.Services, e)
	}
	steps, err := o.churn.Run(ctx, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%d steps\n", steps)
	return err
}
