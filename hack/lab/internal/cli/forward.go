// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/instance"
)

// forwardSubcommand is the part of `lab forward` that runs in the lab.
const forwardSubcommand = "__forward"

func forwardCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "forward LISTEN WHERE:PORT",
		Short: "Open a port of a node, a pod, client, control or lan on this machine",
		Long: "Listens on an address of this machine and leads its connections to 127.0.0.1:PORT in the\n" +
			"namespace, until it is interrupted. LISTEN is IP:PORT; with port 0 the kernel chooses one.",
		Example: "  lab forward 127.0.0.1:9090 node1:9090",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, port, ok := strings.Cut(args[1], ":")
			if !ok {
				return fmt.Errorf("%q: want WHERE:PORT, such as node1:9090", args[1])
			}
			l, address, err := listen(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			fmt.Fprintf(cmd.OutOrStdout(), "%s leads to port %s of %s\n", address, port, where)
			err = runIn(name, instance.ExecRequest{
				Where: where, Argv: []string{"lab", forwardSubcommand, net.JoinHostPort("127.0.0.1", port)}, Stdin: l,
			})
			if cmd.Context().Err() != nil {
				return nil // interrupted
			}
			return err
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

// listen returns a listening socket of the caller's network namespace and its
// address.
func listen(ctx context.Context, address string) (*os.File, net.Addr, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return f, l.Addr(), nil
}

// forwardMain accepts on standard input, a socket that listens on the host,
// and dials in the namespace that it runs in.
func forwardMain(to string) error {
	l, err := net.FileListener(os.Stdin)
	if err != nil {
		return errors.New("this command is the lab's own and not to be called")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, func() { l.Close() })
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("forward to %s: %w", to, err)
		}
		conns.Go(func() { join(ctx, c, to) })
	}
}

// join copies both ways between a connection and an address until both sides
// have ended.
func join(ctx context.Context, c net.Conn, to string) {
	defer c.Close()
	d := net.Dialer{Timeout: 5 * time.Second}
	up, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: forward:", err)
		return
	}
	defer up.Close()
	defer context.AfterFunc(ctx, func() { c.Close(); up.Close() })()
	var back sync.WaitGroup
	back.Go(func() { pour(c, up) })
	pour(up, c)
	back.Wait()
}

// pour copies until the source ends and passes the end on.
func pour(dst, src net.Conn) {
	_, _ = io.Copy(dst, src) // what the reader sees then is an early end
	if t, ok := dst.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
