// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/correlate"
)

// Exit statuses of Run.
const (
	exitOK    = 0
	exitError = 1 // the operation did not succeed
	exitUsage = 2 // the command line cannot be understood
)

// env is what a command takes from the process it runs in.
type env struct {
	program  string // argv[0]
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	getenv   func(string) string
	hostname func() (string, error)
	// now is the time of the snapshot, once one was read.
	now      func() time.Time
	terminal func() bool // stdout is one
	snapshot *capture.Snapshot
	client   *http.Client
	// sleep returns early with ctx's error where that ends.
	sleep func(context.Context, time.Duration) error
	// readOnce reads this node's kernel without an agent.
	readOnce func(context.Context, agent.Config) (*correlate.Snapshot, error)
	// readNode reads this node's kernel and the API, and keeps all of it.
	readNode func(context.Context, agent.Config) (*capture.Node, error)
	// watchFlows blocks until ctx ends.
	watchFlows func(context.Context, agent.Config, agent.FlowWatch) error
	// watchDrops blocks until ctx ends.
	watchDrops func(context.Context, agent.Config, agent.DropWatch) error
	// runAgent blocks until ctx ends.
	runAgent func(context.Context, agent.Config) error
}

// Run runs the command line args, without the program's name, and returns the
// exit status. SIGINT and SIGTERM end the command's context, once: a second
// one ends the process as usual. Where the program was started as
// kubectl-svcscope, as kubectl starts its plugins, usage texts say
// `kubectl svcscope`.
func Run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	return run(ctx, newEnv(stdout, stderr), args)
}

// newEnv is this process.
func newEnv(stdout, stderr io.Writer) *env {
	return &env{
		program:  os.Args[0],
		stdin:    os.Stdin,
		stdout:   stdout,
		stderr:   stderr,
		getenv:   os.Getenv,
		hostname: os.Hostname,
		now:      time.Now,
		sleep:    sleep,
		terminal: func() bool { return isTerminal(stdout) },
		client:   &http.Client{Timeout: 10 * time.Second},
		readOnce: agent.ReadOnce, readNode: agent.ReadNode, watchFlows: agent.WatchFlows, watchDrops: agent.WatchDrops,
		runAgent: agent.Run,
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func run(ctx context.Context, e *env, args []string) int {
	root := newRoot(e)
	// cobra reads os.Args where args is nil.
	root.SetArgs(append([]string{}, args...))
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	printError(e.stderr, err)
	if u := (*usageError)(nil); started && !errors.As(err, &u) {
		return exitError
	}
	printUsageHint(e.stderr, cmd)
	return exitUsage
}

// newRoot builds the whole tree of commands.
func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "svcscope",
		Short: "What this node's kernel really does with Kubernetes Services",
		Long: `svcscope shows what a Kubernetes node's kernel really does with Services: it
joins the API's Services and EndpointSlices with the rules and counters that
the kernel holds.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.AddCommand(newAgent(e), newServices(e), newExplain(e), newDrift(e), newConntrack(e), newDrops(e), newWatch(e),
		newSnapshot(e), newDiff(e), newVersion(e))
	if filepath.Base(e.program) == "kubectl-svcscope" {
		asPlugin(root)
	}
	return root
}

// asPlugin makes usage texts say how a plugin of kubectl is called.
func asPlugin(root *cobra.Command) {
	const name = "kubectl svcscope"
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	for _, cmd := range root.Commands() {
		cmd.Example = strings.ReplaceAll(cmd.Example, "  svcscope ", "  "+name+" ")
	}
}
