// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../../.."

func files(t *testing.T) map[string][]byte {
	t.Helper()
	out, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	for path, want := range files(t) {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is old: go run ./hack/monitoring (-want +got)\n%s", path, diff)
		}
	}
}
