// SPDX-License-Identifier: Apache-2.0

// Package binaries builds and finds the programs that the lab runs: etcd,
// Kubernetes, Prometheus and Helm, each from its Go modules by way of a wrapper
// module in hack/lab/build.
package binaries

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Set is a group of programs that are built together.
type Set struct {
	// Name is the wrapper module's folder, and what `lab build` takes.
	Name string
	// Version is that of the programs, as they print it.
	Version string
	// Programs are the names of the binaries.
	Programs []string
	// CPU is the processor time of a cold build.
	CPU time.Duration
	// builds are arguments to `go build`; "%s" is the folder for results.
	builds [][]string
}

// KubernetesVersion is that of kube-apiserver, kube-proxy and kubectl.
const KubernetesVersion = "v1.37.2"

// Sets returns all sets in the order in which they are built.
func Sets() []Set {
	kubernetes := []string{"-s -w"}
	for _, kv := range []string{"gitVersion=" + KubernetesVersion, "gitMajor=1", "gitMinor=37", "gitTreeState=clean"} {
		kubernetes = append(kubernetes, "-X k8s.io/component-base/version."+kv)
	}
	return []Set{
		{
			Name: "etcd", Version: "3.7.3", Programs: []string{"etcd"}, CPU: 163 * time.Second,
			builds: [][]string{{"-ldflags", "-s -w", "-o", "%s/etcd", "go.etcd.io/etcd/server/v3"}},
		},
		{
			Name: "kubernetes", Version: KubernetesVersion, CPU: 1066 * time.Second,
			Programs: []string{"kube-apiserver", "kube-proxy", "kubectl"},
			builds:   [][]string{{"-ldflags", strings.Join(kubernetes, " "), "-o", "%s/", "tool"}},
		},
		{
			// Prometheus 3.16 is module version 0.316.
			Name: "prometheus", Version: "0.316.0", Programs: []string{"promtool", "prometheus"}, CPU: 496 * time.Second,
			builds: [][]string{{
				"-tags", "remove_all_sd", "-ldflags", "-s -w", "-o", "%s/",
				"github.com/prometheus/prometheus/cmd/promtool", "github.com/prometheus/prometheus/cmd/prometheus",
			}},
		},
		{
			Name: "helm", Version: "v4.3.1", Programs: []string{"helm"}, CPU: 400 * time.Second,
			builds: [][]string{{
				"-ldflags", "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1", "-o", "%s/", "tool",
			}},
		},
	}
}

// Cache returns the folder in which built binaries are kept.
func Cache() (string, error) {
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder: %w; set XDG_CACHE_HOME or HOME", err)
	}
	return filepath.Join(d, "svcscope", "lab"), nil
}

// dir returns where the set's binaries are, once built.
func (s Set) dir(cache string) string {
	return filepath.Join(cache, fmt.Sprintf("%s-%s-%s", s.Name, strings.TrimPrefix(s.Version, "v"), runtime.GOARCH), "bin")
}

// Expected returns how long a cold build takes here, about.
func (s Set) Expected() time.Duration {
	return (s.CPU / time.Duration(min(runtime.NumCPU(), 8))).Round(10 * time.Second)
}

// Find returns the paths of the named programs: from $SVCSCOPE_LAB_BIN, from
// the cache, or from PATH where the version is right.
func Find(names ...string) (map[string]string, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	var missing []string
	for _, name := range names {
		set, ok := setOf(name)
		if !ok {
			return nil, fmt.Errorf("no program %q in any set", name)
		}
		if p := set.find(cache, name); p != "" {
			out[name] = p
		} else if !slices.Contains(missing, set.Name) {
			missing = append(missing, set.Name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: build them with `lab build %s`, or name a folder that has them in SVCSCOPE_LAB_BIN",
			ErrMissing, strings.Join(missing, " "))
	}
	return out, nil
}

// ErrMissing is returned where programs are to be built first.
var ErrMissing = errors.New("binaries of the lab are missing")

func setOf(program string) (Set, bool) {
	for _, s := range Sets() {
		if slices.Contains(s.Programs, program) {
			return s, true
		}
	}
	return Set{}, false
}

func (s Set) find(cache, program string) string {
	if d := os.Getenv("SVCSCOPE_LAB_BIN"); d != "" {
		if p, err := exec.LookPath(filepath.Join(d, program)); err == nil {
			if p, err = filepath.Abs(p); err == nil {
				return p
			}
		}
	}
	if p, err := exec.LookPath(filepath.Join(s.dir(cache), program)); err == nil {
		return p
	}
	if p, err := exec.LookPath(program); err == nil && s.isVersion(p, program) {
		if p, err = filepath.Abs(p); err == nil {
			return p
		}
	}
	return ""
}

func (s Set) isVersion(path, program string) bool {
	args := []string{"--version"}
	switch program {
	case "kubectl":
		args = []string{"version", "--client"}
	case "helm":
		args = []string{"version", "--template={{.Version}}"}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return false
	}
	want := s.Version
	if s.Name == "prometheus" {
		// Module version 0.316.0 prints as 3.16.0.
		want = "3." + strings.TrimPrefix(want, "0.3")
	}
	return slices.Contains(strings.FieldsFunc(string(out), func(r rune) bool {
		return r == ' ' || r == '\n' || r == ','
	}), want)
}
