// SPDX-License-Identifier: Apache-2.0

// Command nft captures the test fixtures of pkg/netfilter/nftables and
// pkg/netfilter/conntrack from the running kernel: for each scene it makes
// new user and network namespaces, loads the scene's rules with iptables-nft
// and nft, and stores the kernel's messages beside what those tools print.
//
// Run it in the repository's root: go run ./hack/capture/nft
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	nftablesDir  = "pkg/netfilter/nftables/testdata"
	conntrackDir = "pkg/netfilter/conntrack/testdata"
	sceneEnv     = "CAPTURE_SCENE"
)

func main() {
	log.SetFlags(0)
	run := captureAll
	if scene := os.Getenv(sceneEnv); scene != "" {
		run = func() error { return capture(scene) }
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// captureAll starts this program anew for each scene, in namespaces.
func captureAll() error {
	files, err := filepath.Glob(filepath.Join(nftablesDir, "scenes", "*"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no scenes in %s: run this in the repository's root (%v)", nftablesDir, err)
	}
	scenes := map[string]bool{"conntrack": true}
	for _, f := range files {
		scenes[strings.TrimSuffix(filepath.Base(f), filepath.Ext(f))] = true
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	for scene := range scenes {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), sceneEnv+"="+scene)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			Pdeathsig:   syscall.SIGKILL,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("scene %s: %w", scene, err)
		}
	}
	return nil
}

// capture loads one scene and stores what the kernel and the tools say.
func capture(scene string) error {
	if scene == "conntrack" {
		return captureConntrack()
	}
	base := filepath.Join(nftablesDir, "scenes", scene)
	loaders := []struct {
		ext  string
		tool []string
	}{
		{".nft", []string{"nft", "-f", "-"}},
		{".rules", []string{"iptables-nft-restore", "--counters"}},
		{".rules6", []string{"ip6tables-nft-restore", "--counters"}},
	}
	iptables := false
	for _, l := range loaders {
		text, err := os.ReadFile(base + l.ext)
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			_, err = tool(string(text), l.tool...)
		}
		if err != nil {
			return err
		}
		iptables = iptables || l.ext != ".nft"
	}
	dir := filepath.Join(nftablesDir, scene)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := captureMessages(dir); err != nil {
		return err
	}
	oracles := map[string][]string{"nft.json": {"nft", "-j", "list", "ruleset"}}
	if iptables {
		oracles["iptables-save.txt"] = []string{"iptables-nft-save", "-c"}
		oracles["ip6tables-save.txt"] = []string{"ip6tables-nft-save", "-c"}
	}
	return writeOracles(dir, oracles)
}

// writeOracles stores what tools print, and the kernel's and their versions.
func writeOracles(dir string, oracles map[string][]string) error {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return err
	}
	versions := "Linux "
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		versions += string(rune(c))
	}
	for _, args := range [][]string{{"iptables-nft", "-V"}, {"nft", "-v"}, {"conntrack", "-V"}} {
		if out, err := tool("", args...); err == nil {
			versions += "\n" + strings.TrimSpace(out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "versions.txt"), []byte(versions+"\n"), 0o644); err != nil {
		return err
	}
	for name, args := range oracles {
		out, err := tool("", args...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(withoutComments(out)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// withoutComments leaves out the lines that hold the time.
func withoutComments(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func tool(stdin string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
