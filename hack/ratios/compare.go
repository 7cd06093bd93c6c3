// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/netfilter/xtables"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

const runs = 5

// cost is what one piece of work took: CPU is user and system time.
type cost struct{ cpu, wall time.Duration }

func compare(ctx context.Context, n int) error {
	for _, b := range []struct {
		name    string
		restore string
		save    string
		read    func(context.Context) error
	}{
		{"nf_tables, every rule", "iptables-nft-restore", "iptables-nft-save", readNFTables},
		{"legacy", "iptables-legacy-restore", "iptables-legacy-save", readLegacy},
	} {
		load := exec.CommandContext(ctx, b.restore)
		load.Stdin = bytes.NewReader(rules(n))
		if out, err := load.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", b.restore, err, out)
		}
		save, err := median(func() error { return exec.CommandContext(ctx, b.save, "-c", "-t", "nat").Run() }, unix.RUSAGE_CHILDREN)
		if err != nil {
			return fmt.Errorf("%s: %w", b.save, err)
		}
		own, err := median(func() error { return b.read(ctx) }, unix.RUSAGE_SELF)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		fmt.Printf("| %d | %s | %v / %v | %v / %v | %.1f |\n", n, b.name, round(save.cpu), round(save.wall),
			round(own.cpu), round(own.wall), float64(save.cpu)/float64(own.cpu))
		flush := exec.CommandContext(ctx, b.restore)
		flush.Stdin = bytes.NewReader([]byte("*nat\nCOMMIT\n"))
		if out, err := flush.CombinedOutput(); err != nil {
			return fmt.Errorf("flush with %s: %w: %s", b.restore, err, out)
		}
	}
	return nil
}

// median runs work several times and returns the median of each figure.
func median(work func() error, who int) (cost, error) {
	var cpu, wall []time.Duration
	for range runs {
		runtime.GC()
		before, err := used(who)
		if err != nil {
			return cost{}, err
		}
		start := time.Now()
		if err := work(); err != nil {
			return cost{}, err
		}
		wall = append(wall, time.Since(start))
		after, err := used(who)
		if err != nil {
			return cost{}, err
		}
		cpu = append(cpu, after-before)
	}
	slices.Sort(cpu)
	slices.Sort(wall)
	return cost{cpu[runs/2], wall[runs/2]}, nil
}

func used(who int) (time.Duration, error) {
	var r unix.Rusage
	if err := unix.Getrusage(who, &r); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// readNFTables does what a sampling of the agent does with one family.
func readNFTables(ctx context.Context) error {
	r, err := kernel.OpenNFTables()
	if err != nil {
		return err
	}
	defer r.Close()
	reading, err := r.Read(ctx, nil)
	if err != nil {
		return err
	}
	rs, _ := ruleset.FromNFTables(netfilter.IPv4, &reading.Ruleset)
	return recognised(rs)
}

func readLegacy(ctx context.Context) error {
	r, err := kernel.OpenLegacy(kernel.LegacyConfig{})
	if err != nil {
		return err
	}
	defer r.Close()
	all := ruleset.NewXTables(netfilter.IPv4)
	if err := r.Read(ctx, netfilter.IPv4, "nat", func(t *xtables.Table) error {
		_, err := all.Update(t)
		return err
	}); err != nil {
		return err
	}
	return recognised(all.Ruleset())
}

func recognised(rs *ruleset.Ruleset) error {
	if v := kubeproxy.NewView(rs); len(v.Ports) == 0 {
		return fmt.Errorf("no Service in what was read")
	}
	return nil
}
