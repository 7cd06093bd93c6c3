// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/binaries"
	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
	"github.com/svcscope/svcscope/hack/lab/internal/instance"
	"github.com/svcscope/svcscope/hack/lab/internal/topology"
)

func buildCommand() *cobra.Command {
	var b binaries.Builder
	cmd := &cobra.Command{
		Use:   "build [etcd|kubernetes|prometheus|helm]...",
		Short: "Build the programs of the lab into the cache",
		RunE: func(cmd *cobra.Command, args []string) error {
			b.Out = cmd.ErrOrStderr()
			return b.Build(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVar(&b.Modules, "modules", "", "folder of the wrapper modules, hack/lab/build ($SVCSCOPE_LAB_MODULES)")
	cmd.AddCommand(&cobra.Command{
		Use: "path PROGRAM...", Short: "Print where programs of the lab are", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := binaries.Find(args...)
			if err != nil {
				return err
			}
			for _, a := range args {
				fmt.Fprintln(cmd.OutOrStdout(), found[a])
			}
			return nil
		},
	})
	return cmd
}

// upOptions are the flags of `lab up` and `lab run`.
type upOptions struct {
	cfg    instance.Config
	nodes  int
	output string
	// userns gives the lab a user namespace of its own.
	userns bool
	// withParent keeps the lab only as long as standard input is open.
	withParent bool
}

func (o *upOptions) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	nameFlag(cmd, &o.cfg.Name)
	f.IntVar(&o.nodes, "nodes", 1, "number of nodes")
	f.IntVar(&o.cfg.Pods, "pods", 3, "number of pods on a node")
	f.StringVar(&o.cfg.ProxyMode, "proxy-mode", "iptables", "kube-proxy's mode: iptables or nftables")
	f.StringVar(&o.cfg.Backend, "iptables", "nft", "what iptables means on the node: nft or legacy")
	f.StringVar(&o.cfg.ControlPlane, "control-plane", "real", "real, or none: then rules come from --rules")
	f.StringVar(&o.cfg.Rules4, "rules", "", "iptables-restore file for the node; for NAME.v4.EXT, NAME.v6.EXT is loaded too")
	f.StringVar(&o.cfg.Rules6, "rules6", "", "ip6tables-restore file for the node")
	f.BoolVar(&o.userns, "userns", true, "in a user namespace of its own; false needs root, and lets kube-proxy write more than a few hundred Services with iptables-nft")
	f.IntVar(&o.cfg.Fillers, "services", 0, "number of Services without traffic, three IPv4 endpoints each, there before kube-proxy starts")
	f.StringVar(&o.cfg.Scene, "scene", "", "Services to begin with: demo")
	f.StringArrayVar(&o.cfg.ProxyArgs, "proxy-arg", nil, "a further flag of kube-proxy (repeatable)")
	f.StringArrayVar(&o.cfg.APIArgs, "apiserver-arg", nil, "a further flag of kube-apiserver (repeatable)")
}

func upCommand() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use: "up", Short: "Bring a lab up and leave it running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.start(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if o.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), s.Info)
			} else {
				describe(cmd.OutOrStdout(), s.Info)
			}
			if err != nil {
				return errors.Join(err, s.Stop())
			}
			if o.withParent {
				return stay(cmd.Context(), s)
			}
			return s.Detach()
		},
	}
	o.bind(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&o.withParent, "die-with-parent", false,
		"stay in the foreground; the lab ends with this process or when its standard input is closed")
	return cmd
}

// stay waits until the caller is gone or the lab has ended by itself.
func stay(ctx context.Context, s *instance.Started) error {
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end, too
		close(gone)
	}()
	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	select {
	case <-gone:
	case <-ctx.Done():
	case err := <-ended:
		return errors.Join(fmt.Errorf("lab %s ended by itself: %w", s.Info.Name, err), s.Stop())
	}
	return s.Stop()
}

func runCommand() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:     "run -- COMMAND [ARG...]",
		Short:   "Bring a lab up, run a command beside it, bring it down",
		Long:    "The command runs on the host with LAB_NAME set, so that `lab exec` and the others reach this lab.",
		Example: "  lab run --scene demo -- sh -c 'lab exec node1 -- iptables-save'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			s, err := o.start(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			c := exec.CommandContext(cmd.Context(), args[0], args[1:]...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
			c.Env = append(os.Environ(), "LAB_NAME="+s.Info.Name, "LAB_KUBECONFIG="+s.Info.Kubeconfig)
			c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
			// However this process ends, the command does too. The signal
			// is tied to the thread that starts it.
			runtime.LockOSThread()
			c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
			var ee *exec.ExitError
			if err = c.Run(); errors.As(err, &ee) && ee.ExitCode() >= 0 {
				return exitStatus(ee.ExitCode())
			}
			return err
		},
	}
	o.bind(cmd)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (o *upOptions) start(ctx context.Context, progress io.Writer) (*instance.Started, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	return instance.Start(ctx, o.cfg, func(step string) { fmt.Fprintf(progress, "lab %s: %s\n", o.cfg.Name, step) })
}

// complete checks the options and finds programs and files.
func (o *upOptions) complete() error {
	c := &o.cfg
	c.RealRoot = !o.userns
	for _, f := range []struct{ flag, value, choices string }{
		{"--proxy-mode", c.ProxyMode, "iptables nftables"},
		{"--iptables", c.Backend, "nft legacy"},
		{"--control-plane", c.ControlPlane, "real none"},
		{"--scene", c.Scene, " demo"},
	} {
		if !oneOf(f.value, f.choices) {
			return fmt.Errorf("%s %q: want one of %s", f.flag, f.value, strings.TrimSpace(f.choices))
		}
	}
	switch {
	case o.nodes != 1:
		return fmt.Errorf("--nodes %d: the lab has one node so far", o.nodes)
	case c.Pods < 0 || c.Pods > topology.MaxPods:
		return fmt.Errorf("--pods %d: want 0 to %d", c.Pods, topology.MaxPods)
	case c.ControlPlane == "none" && c.Scene != "":
		return errors.New("--scene needs --control-plane real; use --rules for rules from a file")
	case c.ControlPlane == "real" && c.Rules4+c.Rules6 != "":
		return errors.New("--rules needs --control-plane none: kube-proxy writes the rules otherwise")
	case c.Fillers < 0 || c.Fillers > cluster.MaxFillers:
		return fmt.Errorf("--services %d: want 0 to %d", c.Fillers, cluster.MaxFillers)
	case c.Fillers > 0 && c.ControlPlane == "none":
		return errors.New("--services needs --control-plane real")
	case c.RealRoot && os.Geteuid() != 0:
		return errors.New("--userns=false needs root")
	case c.Scene == "demo" && c.Pods < 3:
		return fmt.Errorf("--scene demo needs 3 pods, not %d", c.Pods)
	}
	if err := o.rules(); err != nil {
		return err
	}
	if err := o.tools(); err != nil {
		return err
	}
	if c.ControlPlane == "none" {
		return nil
	}
	var err error
	c.Binaries, err = binaries.Find("etcd", "kube-apiserver", "kube-proxy", "kubectl")
	return err
}

func oneOf(v, choices string) bool {
	return slices.Contains(strings.Split(choices, " "), v)
}

// rules finds the IPv6 file beside the IPv4 one and makes paths absolute.
func (o *upOptions) rules() error {
	c := &o.cfg
	if dir, file := filepath.Split(c.Rules4); c.Rules6 == "" && strings.Contains(file, ".v4.") {
		if p := filepath.Join(dir, strings.Replace(file, ".v4.", ".v6.", 1)); exists(p) {
			c.Rules6 = p
		}
	}
	for _, p := range []*string{&c.Rules4, &c.Rules6} {
		if *p == "" {
			continue
		}
		if !exists(*p) {
			return fmt.Errorf("rules %s: %w", *p, os.ErrNotExist)
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("rules %s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tools finds what the lab needs of the system.
func (o *upOptions) tools() error {
	find := func(program, pkg string) (string, error) {
		for _, d := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
			if p, err := exec.LookPath(filepath.Join(d, program)); err == nil {
				return p, nil
			}
		}
		return "", fmt.Errorf("program %s is missing: install the Debian package %s", program, pkg)
	}
	if _, err := find("ip", "iproute2"); err != nil {
		return err
	}
	if o.cfg.ProxyMode == "nftables" {
		if _, err := find("nft", "nftables"); err != nil {
			return err
		}
	}
	var err error
	o.cfg.Xtables, err = find("xtables-"+o.cfg.Backend+"-multi", "iptables")
	return err
}

func describe(w io.Writer, i *instance.Info) {
	fmt.Fprintf(w, "lab %s is up (control plane: %s, kube-proxy mode: %s, iptables: %s)\n\n", i.Name, i.ControlPlane, i.ProxyMode, i.Backend)
	row := func(m instance.Member, what string) {
		fmt.Fprintf(w, "  %-8s %-15s %-24s %s\n", m.Name, m.IPv4[0], m.IPv6[0], what)
	}
	for _, n := range i.Nodes {
		row(n, "the node: bridge, kube-proxy's rules")
	}
	for _, p := range i.Pods {
		row(p, "HTTP on 8080, UDP on 5353")
	}
	row(i.Client, "a client outside the node")
	row(i.Control, "etcd and kube-apiserver")
	fmt.Fprintf(w, "\n  Services   %s\n", strings.Join(i.ServiceCIDRs, ", "))
	if i.Kubeconfig != "" {
		fmt.Fprintf(w, "  kubeconfig %s (inside the lab)\n", i.Kubeconfig)
	}
	fmt.Fprintf(w, "  state      %s\n", i.State)
	for _, warning := range i.Warnings {
		fmt.Fprintf(w, "  warning    %s\n", warning)
	}
	fmt.Fprintf(w, "\nTry:\n  lab exec --name %[1]s node1 -- iptables-save -t nat\n", i.Name)
	if i.Kubeconfig != "" {
		fmt.Fprintf(w, "  lab kubectl --name %[1]s -- get services -A\n", i.Name)
	}
	fmt.Fprintf(w, "  lab load --name %[1]s --from client --to %[2]s:8080 --connections 100\n  lab down --name %[1]s\n", i.Name, i.FirstIPv4())
}
