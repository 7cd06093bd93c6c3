// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitSubcommand and SuperviseSubcommand are the first arguments that make
// the lab program its own PID 1 and its supervisor.
const (
	InitSubcommand      = "__init"
	SuperviseSubcommand = "__supervise"
)

// Descriptors that PID 1 and the supervisor inherit.
const (
	fdLock   = 3 // the lab's lock, held as long as they live
	fdReport = 4 // written: progress, then the outcome
	fdLife   = 5 // read: ends when the caller of `lab up` does
)

// Report is one line that the supervisor tells `lab up`.
type Report struct {
	// Step says what is being waited for.
	Step string `json:"step,omitempty"`
	// Ready is set once, at the end of a bring-up that succeeded.
	Ready *Info `json:"ready,omitempty"`
	// Error is set once, at the end of one that did not.
	Error string `json:"error,omitempty"`
}

// Started is a lab that came up.
type Started struct {
	// Info tells what is there.
	Info  *Info
	state State
	cmd   *exec.Cmd
	life  *os.File
	lock  *os.File
}

// Start brings a lab up and returns when it is ready. progress is called for
// each step. If ctx ends first, or anything fails, nothing is left. Until
// Detach is called the lab ends with the calling process.
func Start(ctx context.Context, cfg Config, progress func(string)) (*Started, error) {
	state, err := Of(cfg.Name)
	if err != nil {
		return nil, err
	}
	lock, err := state.Lock()
	if err != nil {
		return nil, err
	}
	s := &Started{state: state, lock: lock}
	if err := s.start(ctx, cfg, progress); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Started) start(ctx context.Context, cfg Config, progress func(string)) error {
	if cfg.RealRoot && os.Geteuid() != 0 {
		return fmt.Errorf("lab %s: without a user namespace it needs root", cfg.Name)
	}
	if err := s.state.Clean(); err != nil {
		return err
	}
	if err := os.Mkdir(s.state.Path("logs"), 0o700); err != nil {
		return fmt.Errorf("lab %s: %w", cfg.Name, err)
	}
	if err := WriteJSON(s.state.Path("config.json"), cfg); err != nil {
		return err
	}
	report, err := s.spawn(cfg.RealRoot)
	if err != nil {
		return err
	}
	defer report.Close()
	stop := context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(aLongTimeAgo) })
	defer stop()
	if err := s.state.writeProcess(s.cmd.Process.Pid); err != nil {
		return err
	}
	s.Info, err = follow(report, progress)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("lab %s ended while starting: %s", cfg.Name, tail(s.state.Log("lab")))
	}
	return err
}

// spawn starts PID 1, in a user namespace of its own or as the host's root,
// and returns the pipe on which its supervisor reports.
func (s *Started) spawn(realRoot bool) (*os.File, error) {
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reportW.Close()
	lifeR, lifeW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer lifeR.Close()
	s.life = lifeW
	log, err := os.Create(s.state.Log("lab"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	try := func(flags uintptr) error {
		cmd := exec.Command("/proc/self/exe", InitSubcommand, s.state.Dir)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.ExtraFiles = []*os.File{s.lock, reportW, lifeR}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags}
		if flags&unix.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		s.cmd = cmd
		return cmd.Start()
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	if !realRoot {
		err = try(namespaces | unix.CLONE_NEWUSER)
	}
	if realRoot || err != nil && os.Geteuid() == 0 {
		// A kernel without user namespaces still has root's own way.
		err = try(namespaces)
	}
	if err != nil {
		s.cmd = nil
		reportR.Close()
		return nil, fmt.Errorf("lab %s: new namespaces: %w; %s", s.state.Name, err, namespaceRemedy())
	}
	return reportR, nil
}

// namespaceRemedy names the switch of this system that forbids namespaces.
func namespaceRemedy() string {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	switch {
	case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "run as root, or: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "run as root, or: sudo sysctl kernel.unprivileged_userns_clone=1"
	case read("/proc/sys/user/max_user_namespaces") == "0":
		return "run as root, or: sudo sysctl user.max_user_namespaces=10000"
	}
	return "run as root; in a container it needs --privileged"
}

func follow(r io.Reader, progress func(string)) (*Info, error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var rep Report
		if err := json.Unmarshal(sc.Bytes(), &rep); err != nil {
			return nil, fmt.Errorf("decode report %q: %w", sc.Text(), err)
		}
		switch {
		case rep.Error != "":
			return nil, errors.New(rep.Error)
		case rep.Ready != nil:
			return rep.Ready, nil
		default:
			progress(rep.Step)
		}
	}
	return nil, io.ErrUnexpectedEOF
}

// Detach lets the lab outlive the calling process.
func (s *Started) Detach() error {
	if _, err := s.life.Write([]byte("d")); err != nil {
		return fmt.Errorf("lab %s: detach: %w", s.state.Name, err)
	}
	s.life.Close()
	s.lock.Close()
	return s.cmd.Process.Release()
}

// Wait returns when the lab has ended by itself.
func (s *Started) Wait() error { return s.cmd.Wait() }

// Stop ends the lab and removes its state. It returns when nothing is left.
func (s *Started) Stop() error {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = s.cmd.Wait()         // it was killed
	}
	if s.life != nil {
		s.life.Close()
	}
	err := s.state.Remove()
	s.lock.Close()
	return err
}

// tail returns the last lines of a log, for an error message.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "its log " + path + " is empty"
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return strings.TrimSpace(string(b))
}
