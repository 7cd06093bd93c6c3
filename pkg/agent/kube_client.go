// SPDX-License-Identifier: Apache-2.0

//go:build !nokube

package agent

import (
	"log/slog"

	kubeapi "github.com/svcscope/svcscope/pkg/kube"
	"github.com/svcscope/svcscope/pkg/service"
)

// apiState is how the watch of the API goes.
type apiState = kubeapi.State

// errNoAPI says that nothing names an API.
var errNoAPI = kubeapi.ErrNotInCluster

// openWatcher makes the watcher of the API that cfg names.
func openWatcher(cfg Config) func() (watcher, error) {
	return func() (watcher, error) {
		rest, err := kubeapi.LoadConfig(cfg.Kubeconfig)
		if err != nil {
			return nil, err
		}
		w, err := kubeapi.New(kubeapi.Config{
			REST: rest, NodeName: cfg.NodeName, StartJitter: cfg.StartJitter, UserAgent: cfg.UserAgent,
			Pods: cfg.KubePods, Policies: cfg.KubePolicies, Events: cfg.KubeEvents, Logger: cfg.logger(),
		})
		if err != nil {
			return nil, err
		}
		return apiWatcher{w}, nil
	}
}

// apiWatcher is a kube.Watcher in the agent's words.
type apiWatcher struct{ *kubeapi.Watcher }

func (w apiWatcher) ChangedSince(version uint64) (names []service.Name, all bool, next uint64) {
	c := w.Watcher.ChangedSince(version)
	for i := range c.Services {
		names = append(names, c.Services[i].Name)
	}
	return names, c.All, c.Version
}

// routeLogs sends what the Kubernetes client logs to log; it is process-wide.
func routeLogs(log *slog.Logger) { kubeapi.RouteLogs(log) }
