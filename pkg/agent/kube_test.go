// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

func TestKubeModes(t *testing.T) {
	outside := fmt.Errorf("load in-cluster config: %w", errNoAPI)
	tests := []struct {
		name    string
		mode    KubeMode
		open    error
		wantErr bool
		enabled bool
	}{
		{"never asks nothing", KubeNever, nil, false, false},
		{"auto outside of a cluster has none", KubeAuto, outside, false, false},
		{"auto with a broken file goes on", KubeAuto, errors.New("load kubeconfig: no such file"), false, true},
		{"always outside of a cluster is a mistake", KubeAlways, outside, true, true},
		{"always with a broken file goes on", KubeAlways, errors.New("load kubeconfig: no such file"), false, true},
		{"auto in a cluster", KubeAuto, nil, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Kube = tt.mode
			k := newKube(cfg, func() (watcher, error) {
				if tt.open != nil {
					return nil, tt.open
				}
				return newFakeWatcher(), nil
			})
			if err := k.check(); (err != nil) != tt.wantErr {
				t.Fatalf("check: %v", err)
			}
			if s := k.state(); !tt.wantErr && (s.enabled != tt.enabled || s.current) {
				t.Errorf("state %+v, want enabled %v", s, tt.enabled)
			}
		})
	}
}

func TestAnAPIThatComesLaterIsPickedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWatcher()
		begin := time.Now()
		cfg := DefaultConfig()
		k := newKube(cfg, func() (watcher, error) {
			if time.Since(begin) < time.Minute {
				return nil, errors.New("load kubeconfig: no such file")
			}
			return w, nil
		})
		if err := k.check(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.run(ctx) }()
		time.Sleep(2 * time.Minute)
		w.set(&service.Catalog{Synced: true}, apiState{Synced: true, Current: true})
		<-k.first
		<-k.news // the catalog tells of rules to come
		if s := k.state(); !s.current || s.err != "" || s.last.IsZero() {
			t.Errorf("state %+v", s)
		}
		if !k.catalog().Synced {
			t.Error("the catalog is not the API's")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestReadOnceWaitsForTheAPI(t *testing.T) {
	for _, mode := range []KubeMode{KubeAuto, KubeAlways} {
		synctest.Test(t, func(t *testing.T) {
			s := fakeSampler(&fakeBackend{answers: []answer{{set: webRules(t, "7", "2")}}}, newFakeWatcher(), nil)
			s.cfg.Kube, s.kube.mode = mode, mode
			if err := s.kube.check(); err != nil {
				t.Fatal(err)
			}
			got, err := readOnce(t.Context(), s)
			if mode == KubeAlways {
				if err == nil {
					t.Error("--kube=always: an API that does not answer is no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p := got.Services[0]; p.Cluster != 5 || p.External != 2 || !p.SinceRule {
				t.Errorf("%+v, want the rules' own 5 and 2", p)
			}
		})
	}
}
