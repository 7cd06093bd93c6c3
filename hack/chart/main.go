// SPDX-License-Identifier: Apache-2.0

// Command chart makes what is derived from the Helm chart in charts/svcscope:
//
//	go run . readme        writes charts/svcscope/README.md
//	go run . deploy        writes the plain manifests in deploy/
//
// It is run in its own folder, hack/chart. deploy needs helm: it renders the
// chart with the program that `lab build helm` made.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Paths of the repository, from hack/chart.
const (
	root      = "../.."
	chartDir  = root + "/charts/svcscope"
	deployDir = root + "/deploy"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch strings.Join(args, " ") {
	case "readme":
		text, err := readme(chartDir)
		if err != nil {
			return err
		}
		return write(chartDir, map[string]string{"README.md": text})
	case "deploy":
		h, err := findHelm()
		if err != nil {
			return err
		}
		files, err := manifests(h)
		if err != nil {
			return err
		}
		return write(deployDir, files)
	default:
		return errors.New("usage: chart readme|deploy")
	}
}

// write puts files, by their path below dir, where they belong.
func write(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make folder of %s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}
