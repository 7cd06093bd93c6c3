// SPDX-License-Identifier: Apache-2.0

// Command nft captures the test fixtures of pkg/netfilter/nftables and
// pkg/netfilter/conntrack from the running kernel: for each scene it makes
// new namespaces, loads the scene's rules with iptables-nft
// and nft, and stores the kernel's messages beside what those tools print.
//
// Run it in the repository's root:
//
//	go run ./hack/capture/nft           # all scenes
//	go run ./hack/capture/nft plain     # some
//
// With -here it loads nothing, and stores the messages of the network namespace that it
// runs in and what nft prints of it, in the folder named: hack/lab/capture.sh runs it so
// on a node of the lab.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/capture/scene"
)

const (
	nftablesDir  = "pkg/netfilter/nftables/testdata"
	conntrackDir = "pkg/netfilter/conntrack/testdata"
)

func main() {
	log.SetFlags(0)
	here := flag.String("here", "", "store the messages of this network namespace in a folder")
	flag.Parse()
	if err := run(*here, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// run captures all scenes, those that are named, or this namespace.
func run(here string, names []string) (err error) {
	switch {
	case here != "":
		if err := os.MkdirAll(here, 0o755); err != nil {
			return err
		}
		if err := captureMessages(here); err != nil {
			return err
		}
		return writeOracles(here, map[string][]string{"nft.json": {"nft", "-j", "list", "ruleset"}})
	case len(names) == 0:
		if names, err = scenes(); err != nil {
			return err
		}
	}
	return scene.Run(names, capture)
}

// scenes are those whose rules are in the testdata, conntrack and notices.
func scenes() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(nftablesDir, "scenes", "*"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scenes in %s: run this in the repository's root", nftablesDir)
	}
	out := []string{"conntrack", "notices"}
	for _, f := range files {
		out = append(out, strings.TrimSuffix(filepath.Base(f), filepath.Ext(f)))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// capture loads one scene and stores what the kernel and the tools say.
func capture(name string) error {
	if name == "conntrack" {
		return captureConntrack()
	}
	if name == "notices" {
		return captureNotices()
	}
	base := filepath.Join(nftablesDir, "scenes", name)
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
			_, err = scene.Tool(string(text), l.tool...)
		}
		if err != nil {
			return err
		}
		iptables = iptables || l.ext != ".nft"
	}
	dir := filepath.Join(nftablesDir, name)
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
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	versions := []string{"Linux " + unix.ByteSliceToString(u.Release[:])}
	for _, args := range [][]string{{"iptables-nft", "-V"}, {"nft", "-v"}, {"conntrack", "-V"}} {
		if out, err := scene.Tool("", args...); err == nil {
			versions = append(versions, strings.TrimSpace(out))
		}
	}
	text := strings.Join(versions, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "versions.txt"), []byte(text), 0o644); err != nil {
		return err
	}
	for name, args := range oracles {
		out, err := scene.Tool("", args...)
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
