// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"fmt"
	"os"
	"testing"
)

// Result logs what a test has measured or shown, and adds it to the file
// SVCSCOPE_RESULTS, of which `make test-long` makes docs/verification.md.
func Result(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf("| %s | %s |\n", t.Name(), fmt.Sprintf(format, args...))
	t.Log(line)
	path := os.Getenv("SVCSCOPE_RESULTS")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(line); err != nil {
		t.Fatal(err)
	}
}
