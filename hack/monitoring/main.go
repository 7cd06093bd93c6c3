// SPDX-License-Identifier: Apache-2.0

// Command monitoring writes the dashboards and rules that the project ships.
// Run it from the repository's root:
//
//	go run ./hack/monitoring          write all files
//	go run ./hack/monitoring -check   exit 1 and name the files that are not current
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/svcscope/svcscope/hack/monitoring/dashboards"
	"github.com/svcscope/svcscope/hack/monitoring/rules"
)

func main() {
	check := flag.Bool("check", false, "write nothing; exit 1 and name the files that are not current")
	flag.Parse()
	if err := run(".", *check); err != nil {
		fmt.Fprintln(os.Stderr, "monitoring:", err)
		os.Exit(1)
	}
}

// run writes all generated files below root, or with check compares them.
func run(root string, check bool) error {
	files, err := generated()
	if err != nil {
		return err
	}
	if check {
		return compare(root, files)
	}
	return write(root, files)
}

// generated returns the content of all files by path from the repository's
// root.
func generated() (map[string][]byte, error) {
	files, err := dashboards.Files()
	if err != nil {
		return nil, err
	}
	more, err := rules.Files()
	if err != nil {
		return nil, err
	}
	maps.Copy(files, more)
	return files, nil
}

func write(root string, files map[string][]byte) error {
	for path, content := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		if err := os.WriteFile(full, content, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

// compare returns an error for each file that is missing or differs, and for
// each JSON or YAML file that lies beside them without being generated.
func compare(root string, files map[string][]byte) error {
	var stale []error
	folders := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		folders[filepath.Dir(path)] = true
		got, err := os.ReadFile(filepath.Join(root, path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			stale = append(stale, fmt.Errorf("%s is missing: go run ./hack/monitoring", path))
		case err != nil:
			return err
		case !bytes.Equal(got, files[path]):
			stale = append(stale, fmt.Errorf("%s is not current: go run ./hack/monitoring", path))
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		left, err := leftOver(root, folder, files)
		if err != nil {
			return err
		}
		stale = append(stale, left...)
	}
	return errors.Join(stale...)
}

func leftOver(root, folder string, files map[string][]byte) ([]error, error) {
	var left []error
	paths, err := filepath.Glob(filepath.Join(root, folder, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, full := range paths {
		path, err := filepath.Rel(root, full)
		if err != nil {
			return nil, err
		}
		if _, ok := files[path]; !ok {
			left = append(left, fmt.Errorf("%s is not generated: remove it", path))
		}
	}
	return left, nil
}
