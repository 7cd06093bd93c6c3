// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

const kubeconfigText = `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: k, cluster: {server: "https://192.0.2.1:6443", certificate-authority: ca.crt}}]
contexts: [{name: c, context: {cluster: k, user: u}}]
users: [{name: u, user: {%s}}]
`

func TestLoadConfigFromFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Neither of these may stand in for the file that was named.
	t.Setenv("KUBECONFIG", write(fmt.Sprintf(kubeconfigText, "token: other")))
	t.Setenv("KUBERNETES_SERVICE_HOST", "192.0.2.9")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")

	path := write(fmt.Sprintf(kubeconfigText, "token: secret"))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "ca.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://192.0.2.1:6443" || cfg.BearerToken != "secret" || cfg.CAFile != filepath.Join(filepath.Dir(path), "ca.crt") {
		t.Errorf("got host %q, CA %q", cfg.Host, cfg.CAFile)
	}

	tests := []struct{ name, path, want string }{
		{"missing", "/nonexistent/kubeconfig", "no such file"},
		{"no YAML", write("{"), "load kubeconfig"},
		{"empty", write(""), "no configuration"},
		{"a program for credentials", write(fmt.Sprintf(strings.Replace(kubeconfigText, ", certificate-authority: ca.crt", "", 1), "exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, interactiveMode: Never}")), "runs aws"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := LoadConfig(tt.path)
			if err == nil {
				t.Fatalf("no error; host %q", cfg.Host)
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("got %q: want the path and %q", err, tt.want)
			}
			if errors.Is(err, ErrNotInCluster) {
				t.Errorf("%q is ErrNotInCluster", err)
			}
		})
	}
}

func TestLoadConfigOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBERNETES_SERVICE_PORT", "")
	if _, err := LoadConfig(""); !errors.Is(err, ErrNotInCluster) {
		t.Errorf("got %v, want ErrNotInCluster", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "192.0.2.9")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token"); err == nil {
		return // this test runs in a pod
	}
	_, err := LoadConfig("")
	if err == nil || errors.Is(err, ErrNotInCluster) || !strings.Contains(err.Error(), "load in-cluster config") {
		t.Errorf("no token: got %v", err)
	}
}

func TestRouteLogs(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	for _, tt := range []struct {
		level slog.Level
		want  string
	}{{slog.LevelDebug, "DEBUG info WARN error"}, {slog.LevelInfo, "WARN error"}, {slog.LevelError, ""}} {
		var log logBuffer
		RouteLogs(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: tt.level})))
		klog.Background().Info("info")
		klog.Background().WithValues("k", "v").Error(nil, "error")
		var got []string
		for field := range strings.FieldsSeq(log.String()) {
			if k, v, _ := strings.Cut(field, "="); k == "level" || k == "msg" {
				got = append(got, v)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("level %s: got %v, want %q", tt.level, got, tt.want)
		}
	}
}
