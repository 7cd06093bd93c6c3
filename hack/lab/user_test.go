// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

// TestAnOrdinaryUserCanRunIt starts a lab as nobody where the tests run as
// root; elsewhere all tests run as an ordinary user anyway.
func TestAnOrdinaryUserCanRunIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests show it")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "lab-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	program := labtest.Program(t)
	files := map[string]string{"lab": program, "demo.v4.rules": "scenes/demo.v4.rules", "demo.v6.rules": "scenes/demo.v6.rules"}
	for name, from := range files {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "./lab", "run", "--iptables", backend, "--control-plane", "none",
				"--rules", "demo.v4.rules", "--", "sh", "-c",
				"./lab load --require-success --to 10.96.0.80:80 -n 50 && ./lab load --require-success --to '[fd00:192:168:50::11]:30080' -n 50")
			var out bytes.Buffer
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			if err := cmd.Run(); err != nil {
				t.Errorf("as user %d: %v\n%s", nobody, err, out.Bytes())
			}
			if _, err := os.Stat(filepath.Join(dir, "svcscope-lab")); err == nil {
				t.Error("state is left")
			}
		})
	}
}
