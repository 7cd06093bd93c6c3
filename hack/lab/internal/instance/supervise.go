// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/cluster"
	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
	"github.com/svcscope/svcscope/hack/lab/internal/topology"
)

// supervisor brings a lab up and keeps it.
type supervisor struct {
	cfg    Config
	state  State
	log    *slog.Logger
	report *json.Encoder
	server *server
	node   topology.Node
}

// SuperviseMain is the lab's supervisor. It returns when the lab is to end.
func SuperviseMain(stateDir string) error {
	s := &supervisor{
		state:  State{Name: filepath.Base(stateDir), Dir: stateDir},
		log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		report: json.NewEncoder(os.NewFile(fdReport, "report")),
		node:   topology.Node{Number: 1},
	}
	// Programs that the supervisor starts must not hold these.
	for fd := fdLock; fd <= fdLife; fd++ {
		unix.CloseOnExec(fd)
	}
	caller := make(chan bool, 1)
	go func() { caller <- watchCaller(os.NewFile(fdLife, "life")) }()
	if err := ReadJSON(s.state.Path("config.json"), &s.cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	up := make(chan error, 1)
	go func() { up <- s.up(ctx) }()
	for {
		select {
		case err := <-up:
			if err != nil {
				s.log.Error("bring up", "err", err)
				_ = s.report.Encode(Report{Error: err.Error()})
				return err
			}
		case detached := <-caller:
			if !detached {
				return nil
			}
		}
	}
}

// watchCaller reports whether the caller let the lab go on without it; it
// returns false when the caller ended before.
func watchCaller(life *os.File) bool {
	n, _ := life.Read(make([]byte, 1))
	return n == 1
}

// step tells the caller what is done now; without a caller the lab ends anyway.
func (s *supervisor) step(what string) { _ = s.report.Encode(Report{Step: what}) }

func (s *supervisor) up(ctx context.Context) error {
	if err := s.programs(); err != nil {
		return err
	}
	s.step("making namespaces and links")
	warnings, err := topology.Build(s.node, s.cfg.Pods)
	if err != nil {
		return err
	}
	if err := s.backend(); err != nil {
		return err
	}
	info := s.info(warnings)
	if err := s.startPods(ctx, info); err != nil {
		return err
	}
	if s.cfg.ControlPlane == "real" {
		err = s.controlPlane(ctx)
	} else {
		err = s.loadRules(ctx)
	}
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.state.Socket(), Net: "unix"})
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	go s.server.serve(l)
	if err := WriteJSON(s.state.Path("info.json"), info); err != nil {
		return err
	}
	return s.report.Encode(Report{Ready: info})
}

// programs puts links to the lab's programs in front of PATH.
func (s *supervisor) programs() error {
	links := map[string]string{}
	maps.Copy(links, s.cfg.Binaries)
	for _, v := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			links[v+suffix] = s.cfg.Xtables
		}
	}
	dir, err := linkPrograms("bin", links)
	if err != nil {
		return err
	}
	// A copy stays this very program, also when it is built anew.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("copy the lab program: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lab"), self, 0o755); err != nil {
		return fmt.Errorf("copy the lab program: %w", err)
	}
	env := []string{"LAB_NAME=" + s.cfg.Name, "LAB_STATE=" + s.state.Dir, "LAB_INSIDE=1"}
	if s.cfg.ControlPlane == "real" {
		env = append(env, "KUBECONFIG="+s.state.Kubeconfig())
	}
	s.server = &server{log: s.log, env: env, path: dir}
	return os.Setenv("PATH", dir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
}

// backend tells early, and with the remedy, that the kernel has no legacy
// iptables: nothing loads these modules from inside a user namespace.
func (s *supervisor) backend() error {
	if s.cfg.Backend != "legacy" {
		return nil
	}
	return nsexec.Do(s.node.Name(), func() error {
		for _, m := range []string{"ip", "ip6"} {
			if _, err := os.Stat("/proc/thread-self/net/" + m + "_tables_names"); err != nil {
				return fmt.Errorf("legacy iptables: %w: sudo modprobe -a %[2]s_tables %[2]stable_nat %[2]stable_filter %[2]stable_mangle", err, m)
			}
		}
		return nil
	})
}

func (s *supervisor) info(warnings []string) *Info {
	i := &Info{
		Name: s.cfg.Name, State: s.state.Dir, ProxyMode: s.cfg.ProxyMode, Backend: s.cfg.Backend,
		ControlPlane: s.cfg.ControlPlane, ServiceCIDRs: []string{topology.ServiceCIDR4, topology.ServiceCIDR6},
		Nodes:   []Member{{Name: s.node.Name(), IPv4: []string{s.node.IPv4()}, IPv6: []string{s.node.IPv6()}}},
		Control: Member{Name: "control", IPv4: []string{topology.Control4}, IPv6: []string{topology.Control6}},
		Client:  Member{Name: "client"}, Warnings: warnings,
	}
	for n := range topology.ClientAddresses {
		i.Client.IPv4 = append(i.Client.IPv4, topology.ClientIPv4(n))
		i.Client.IPv6 = append(i.Client.IPv6, topology.ClientIPv6(n))
	}
	for n := range s.cfg.Pods {
		i.Pods = append(i.Pods, Member{
			Name: topology.PodName(n + 1), IPv4: []string{s.node.PodIPv4(n + 1)}, IPv6: []string{s.node.PodIPv6(n + 1)},
		})
	}
	if s.cfg.ControlPlane == "real" {
		i.Kubeconfig, i.AuditLog = s.state.Kubeconfig(), s.state.Log("audit")
	}
	s.server.names = []string{"lan", "control", "client", s.node.Name()}
	for _, p := range i.Pods {
		s.server.names = append(s.server.names, p.Name)
	}
	return i
}

func (s *supervisor) startPods(ctx context.Context, info *Info) error {
	s.step(fmt.Sprintf("starting servers in %d pods", len(info.Pods)))
	for _, p := range info.Pods {
		end, err := s.start(p.Name, []string{"lab", "serve", "--name-in-answer", p.Name})
		if err != nil {
			return err
		}
		// The bridge is in the node; the LAN reaches pods through it.
		dial := func(ctx context.Context) error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.IPv4[0]+":8080")
			if err != nil {
				return err
			}
			return c.Close()
		}
		if err := cluster.Poll(ctx, 30*time.Second, dial, map[string]<-chan struct{}{"server": end}); err != nil {
			return fmt.Errorf("wait for %s: %w", p.Name, err)
		}
	}
	return nil
}

// start runs a component in a namespace with its output in a log.
func (s *supervisor) start(netns string, argv []string) (<-chan struct{}, error) {
	name := filepath.Base(argv[0])
	if name == "lab" {
		name = netns
	}
	log, err := os.Create(s.state.Log(name))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = nsexec.Argv("lab", nsexec.Options{Netns: netns, Hostname: netns}, argv)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + RunDir, "LAB_STATE=" + s.state.Dir}
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	end := make(chan struct{})
	go func() {
		s.log.Warn("component ended", "component", name, "err", cmd.Wait())
		close(end)
	}()
	return end, nil
}

func (s *supervisor) controlPlane(ctx context.Context) error {
	p := cluster.Plane{
		Dir: RunDir + "/control", Kubeconfig: s.state.Kubeconfig(), Binaries: s.cfg.Binaries,
		AuditLog: s.state.Log("audit"), APIArgs: s.cfg.APIArgs,
		ProxyMode: s.cfg.ProxyMode, ProxyArgs: s.cfg.ProxyArgs, Fillers: s.cfg.Fillers, Start: s.start, Step: s.step,
	}
	client, err := p.Up(ctx, s.node)
	if err != nil {
		return fmt.Errorf("%w; logs are in %s", err, s.logs())
	}
	if s.cfg.Scene == "" {
		return nil
	}
	s.step("making the Services of the scene")
	rules := cluster.Rules{Node: s.node.Name(), ProxyMode: s.cfg.ProxyMode}
	for _, e := range cluster.Demo() {
		ex, err := e.Apply(ctx, client)
		if err != nil {
			return err
		}
		if err := rules.WaitFor(ctx, e, ex); err != nil {
			return err
		}
	}
	return nil
}

// logs returns the last lines of all logs: the folder goes with the lab.
func (s *supervisor) logs() string {
	files, err := filepath.Glob(s.state.Path("logs", "*.log"))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, f := range slices.Sorted(slices.Values(files)) {
		if base := filepath.Base(f); base != "lab.log" && !strings.HasPrefix(base, "pod") {
			fmt.Fprintf(&b, "\n== %s\n%s", base, tail(f))
		}
	}
	return b.String()
}
