// SPDX-License-Identifier: Apache-2.0

// Command chart makes what is derived from the Helm chart in charts/svcscope:
//
//	go run . readme        prints the chart's README.md
//	go run . deploy DIR    writes the plain manifests into DIR (the repository's deploy/)
//
// It is run in its own folder, hack/chart. deploy needs helm: it renders the
// chart with the program that `lab build helm` made.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Paths of the repository, from hack/chart.
const (
	root      = "../.."
	chartDir  = root + "/charts/svcscope"
	deployDir = root + "/deploy"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "readme":
		text, err := readme(chartDir)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	case len(args) == 2 && args[0] == "deploy":
		h, err := findHelm()
		if err != nil {
			return err
		}
		files, err := manifests(h)
		if err != nil {
			return err
		}
		return write(args[1], files)
	default:
		return fmt.Errorf("usage: chart readme | chart deploy DIR")
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
