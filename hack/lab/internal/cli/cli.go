// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of the lab program.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/instance"
	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
)

// exitStatus is a command's own exit status, passed on without a message.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Run runs the program with its arguments and returns the exit status.
func Run(args []string) int {
	if len(args) > 0 {
		if f, ok := internalCommands()[args[0]]; ok {
			if err := f(args[1:]); err != nil {
				fmt.Fprintln(os.Stderr, "lab:", err)
				return 125
			}
			return 0
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	cmd := root()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	return 1
}

// internalCommands are the roles that the program plays inside a lab.
func internalCommands() map[string]func([]string) error {
	dir := func(f func(string) error) func([]string) error {
		return func(args []string) error {
			if len(args) != 1 {
				return errors.New("this command is the lab's own and not to be called")
			}
			return f(args[0])
		}
	}
	return map[string]func([]string) error{
		nsexec.Subcommand:            nsexec.Main,
		instance.InitSubcommand:      dir(instance.InitMain),
		instance.SuperviseSubcommand: dir(instance.SuperviseMain),
		forwardSubcommand:            dir(forwardMain),
		listenSubcommand:             listenMain,
		watchSubcommand:              dir(watchMain),
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "lab",
		Short:         "A real Kubernetes node and control plane in network namespaces",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(buildCommand(), upCommand(), downCommand(), statusCommand(), runCommand(),
		execCommand(), kubectlCommand(), exposeCommand(), unexposeCommand(), churnCommand(), loadCommand(), serveCommand(), forwardCommand())
	return cmd
}

// nameFlag binds --name, whose default is $LAB_NAME or "lab".
func nameFlag(cmd *cobra.Command, name *string) {
	def := os.Getenv("LAB_NAME")
	if def == "" {
		def = "lab"
	}
	cmd.Flags().StringVar(name, "name", def, "name of the lab ($LAB_NAME)")
}

// inside reports whether this process runs in a lab.
func inside() bool { return os.Getenv("LAB_INSIDE") == "1" }

// relay runs this very command line in a namespace of the lab.
func relay(name, where string) error {
	return runIn(name, instance.ExecRequest{Where: where, Argv: append([]string{"lab"}, os.Args[1:]...)})
}

func runIn(name string, req instance.ExecRequest) error {
	state, err := instance.Of(name)
	if err != nil {
		return err
	}
	code, err := instance.Exec(state, req)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}

func downCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "down", Short: "End a lab and remove what is left of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := instance.Of(name)
			if err != nil {
				return err
			}
			was, err := instance.Down(state)
			if err == nil && !was {
				fmt.Fprintf(cmd.ErrOrStderr(), "lab %s was not up\n", name)
			}
			return err
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

func statusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "List the labs of this user", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return status(cmd.OutOrStdout(), output) },
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

type labStatus struct {
	Name  string         `json:"name"`
	State string         `json:"state"`
	Info  *instance.Info `json:"info,omitempty"`
}

func status(w io.Writer, output string) error {
	states, err := instance.List()
	if err != nil {
		return err
	}
	all := []labStatus{}
	for _, s := range states {
		st := labStatus{Name: s.Name, State: "dead"}
		var info instance.Info
		if err := instance.ReadJSON(s.Path("info.json"), &info); err == nil {
			st.Info = &info
		}
		switch {
		case s.Running() && st.Info != nil:
			st.State = "up"
		case s.Running():
			st.State = "starting"
		}
		all = append(all, st)
	}
	if output == "json" {
		return writeJSON(w, all)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tSTATE\tCONTROL PLANE\tPROXY MODE\tIPTABLES\tPODS")
	for _, st := range all {
		if st.Info == nil {
			fmt.Fprintf(tw, "%s\t%s\t\t\t\t\n", st.Name, st.State)
			continue
		}
		i := st.Info
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\n", st.Name, st.State, i.ControlPlane, i.ProxyMode, i.Backend, len(i.Pods))
	}
	return tw.Flush()
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func execCommand() *cobra.Command {
	var name, caps string
	cmd := &cobra.Command{
		Use:   "exec WHERE -- COMMAND [ARG...]",
		Short: "Run a command in a node, a pod, client, control or lan",
		Example: "  lab exec node1 -- iptables-save -c -t nat\n" +
			"  lab exec --caps net_admin node1 -- svcscope services --kube=never",
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := instance.ExecRequest{Where: args[0], Argv: args[1:], DropCaps: cmd.Flags().Changed("caps")}
			if req.Argv[0] == "--" {
				req.Argv = req.Argv[1:]
			}
			if caps != "" && caps != "none" {
				req.Caps = splitList(caps)
			}
			return runIn(name, req)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&caps, "caps", "", "keep only these capabilities (net_admin,…, or none), drop the rest from the bounding set too, and set no_new_privs")
	nameFlag(cmd, &name)
	return cmd
}

func kubectlCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "kubectl -- ARG...", Short: "Run kubectl as the cluster's administrator",
		RunE: func(_ *cobra.Command, args []string) error {
			return runIn(name, instance.ExecRequest{Where: "control", Argv: append([]string{"kubectl"}, args...)})
		},
	}
	cmd.Flags().SetInterspersed(false)
	nameFlag(cmd, &name)
	return cmd
}
