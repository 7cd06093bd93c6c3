// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// helm is the path of the helm program.
type helm string

// findHelm returns the helm that the lab builds.
func findHelm() (helm, error) {
	p, err := labBinary("helm")
	return helm(p), err
}

// labBinary asks the lab program where one of its binaries is.
func labBinary(name string) (string, error) {
	cmd := exec.Command("go", "run", ".", "build", "path", name)
	cmd.Dir = filepath.Join(root, "hack", "lab")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find %s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// template renders the chart as `helm template RELEASE` with further
// arguments, and returns what it wrote to standard output.
func (h helm) template(release string, args ...string) (string, error) {
	return h.run(append([]string{"template", release, chartDir}, args...)...)
}

// run starts helm, which meets neither a cluster nor the user's settings. The
// error carries what it wrote to standard error.
func (h helm) run(args ...string) (string, error) {
	cmd := exec.Command(string(h), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+os.DevNull, "HELM_NAMESPACE=", "HELM_PLUGINS="+os.DevNull)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("helm %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
