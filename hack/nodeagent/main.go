// SPDX-License-Identifier: Apache-2.0

// Nodeagent is the lab node agent: it lets a DaemonSet's pod run as a process
// in the lab's node, exactly as the pod's spec says. It is no kubelet; see
// README.md for what it plays and what it leaves out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/container"
	"github.com/svcscope/svcscope/hack/nodeagent/internal/controllers"
	"github.com/svcscope/svcscope/hack/nodeagent/internal/image"
	"github.com/svcscope/svcscope/hack/nodeagent/internal/pods"
	"github.com/svcscope/svcscope/hack/nodeagent/internal/server"
)

func main() {
	if len(os.Args) == 2 && (os.Args[1] == container.InitCommand || os.Args[1] == container.ExecCommand) {
		container.Main(os.Args[1])
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	kubeconfig, node, dir, client string
	port                          int
	period                        time.Duration
	images                        map[string]string // paths by name
}

func parse(args []string) (options, error) {
	o := options{images: map[string]string{}}
	f := flag.NewFlagSet("nodeagent", flag.ContinueOnError)
	f.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "the administrator's kubeconfig")
	f.StringVar(&o.node, "node", "node1", "name of the Node object")
	f.StringVar(&o.dir, "dir", "/run/lab/nodeagent", "folder for root file systems, volumes and logs; it is emptied at the start and removed at the end")
	f.StringVar(&o.client, "client", "kube-apiserver-kubelet-client", "name in the certificate of who may ask for exec and logs")
	f.IntVar(&o.port, "port", 10250, "port on the node's address for exec and logs")
	f.DurationVar(&o.period, "period", 300*time.Millisecond, "time between looks at the API")
	f.Func("image", "`NAME=PATH`: an image by the name that pods give, an OCI archive or a folder (repeatable)", func(v string) error {
		name, path, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("want NAME=PATH")
		}
		o.images[name] = path
		return nil
	})
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, nil
}

func run(args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 100, 200
	if err := rest.LoadTLSFiles(config); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	images, err := o.open()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	node, err := pods.NewNode(ctx, pods.Config{Client: client, Node: o.node, Images: images, Dir: o.dir, Log: log}, o.port)
	if err != nil {
		return err
	}
	s := &server.Server{Node: node, CA: config.CAData, Client: o.client, Log: log}
	l, err := s.Listen(net.JoinHostPort(node.Addresses()[0], strconv.Itoa(o.port)))
	if err != nil {
		return err
	}
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serve", "err", err)
			stop()
		}
	}()
	log.Info("the lab node agent is ready", "node", o.node, "addresses", node.Addresses())
	sets := &controllers.DaemonSets{Client: client, Node: o.node, Log: log}
	loop(ctx, o.period, func() {
		err := errors.Join(controllers.Namespaces(ctx, client, config.CAData), sets.Sync(ctx), node.Sync(ctx))
		if err != nil && ctx.Err() == nil {
			log.Error("sync", "err", err)
		}
	})
	log.Info("ending")
	return errors.Join(node.Stop(), h.Close())
}

// open opens the images in a fresh folder of the agent's.
func (o *options) open() (map[string]*image.Image, error) {
	if err := os.RemoveAll(o.dir); err != nil {
		return nil, err
	}
	out := map[string]*image.Image{}
	for name, path := range o.images {
		scratch := filepath.Join(o.dir, "images", strconv.Itoa(len(out)))
		if err := os.MkdirAll(scratch, 0o755); err != nil {
			return nil, err
		}
		i, err := image.Open(path, scratch)
		if err != nil {
			return nil, err
		}
		out[name] = i
	}
	return out, nil
}

func loop(ctx context.Context, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
