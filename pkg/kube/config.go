// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNotInCluster is what LoadConfig returns, wrapped, where no kubeconfig is
// named and this process does not run in a pod.
var ErrNotInCluster = errors.New("not in a cluster (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set) and no kubeconfig is named")

// LoadConfig finds out how to reach the API: by the kubeconfig file of that
// path and its current context, or, for an empty path, by the service account
// of the pod. It makes no request. A kubeconfig whose user runs a program for
// its credentials is refused: svcscope starts no process.
func LoadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("load in-cluster config: %w", ErrNotInCluster)
		}
		if err != nil {
			return nil, fmt.Errorf("load in-cluster config: %w", err)
		}
		return cfg, nil
	}
	// Only the named file counts: neither $KUBECONFIG nor the home folder.
	raw, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}).Load()
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig %s: %w", kubeconfig, err)
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*raw, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig %s: %w", kubeconfig, err)
	}
	if cfg.ExecProvider != nil {
		return nil, fmt.Errorf("load kubeconfig %s: user runs %s for its credentials, which is not supported; use a token or a client certificate", kubeconfig, cfg.ExecProvider.Command)
	}
	return cfg, nil
}
