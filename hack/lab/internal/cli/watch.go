// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
)

// watchSubcommand is the first argument that makes the lab program a client of the
// API that does as little as one can.
const watchSubcommand = "__watch"

// watchMain watches Services and EndpointSlices, as kube-proxy does, until
// SIGTERM: what one more client costs where the API server runs beside the node.
func watchMain(kubeconfig string) error {
	c, err := cluster.NewClient(kubeconfig)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	paths := []string{"/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"}
	began, ended := make(chan struct{}, len(paths)), make(chan error, len(paths))
	for _, path := range paths {
		go func() { ended <- c.Watch(ctx, path, func() { began <- struct{}{} }) }()
	}
	for range paths {
		select {
		case <-began:
		case err := <-ended:
			stop()
			return errors.Join(err, <-ended)
		}
	}
	fmt.Println("watching")
	err = <-ended
	stop()
	return errors.Join(err, <-ended)
}
