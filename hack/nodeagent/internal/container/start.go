// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitCommand and ExecCommand are first arguments with which this program
// becomes a container's process, or a further process in a container.
const (
	InitCommand = "__init"
	ExecCommand = "__exec"
)

// Descriptors of a new process.
const (
	fdSpec = 3 // read: the Spec or Process as JSON
	fdErr  = 4 // written: why it did not come to the program
	fdPid  = 5 // a pidfd of the container that is joined
)

// Streams are a process's standard files. A nil one is /dev/null.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Running is a process that has become its program.
type Running struct {
	cmd   *exec.Cmd
	pidfd *os.File
}

// Start starts a container and returns when its program runs.
func Start(s *Spec, std Streams) (*Running, error) {
	cmd := command(InitCommand, std)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
	}
	if err := launch(cmd, s, nil); err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pidfd: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	return &Running{cmd: cmd, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Exec starts a further process in the container's namespaces and returns
// when its program runs.
func (r *Running) Exec(p *Process, std Streams) (*exec.Cmd, error) {
	cmd := command(ExecCommand, std)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := make(chan error)
	go func() {
		// The thread ends with the goroutine: it is never unlocked. Its
		// children belong to the container's PID namespace.
		runtime.LockOSThread()
		if e := unix.Setns(int(r.pidfd.Fd()), unix.CLONE_NEWPID); e != nil {
			err <- fmt.Errorf("join PID namespace: %w", e)
			return
		}
		err <- launch(cmd, p, r.pidfd)
	}()
	return cmd, <-err
}

// Pid returns the process's number as the caller sees it.
func (r *Running) Pid() int { return r.cmd.Process.Pid }

// Signal sends a signal; that the process has ended is no error.
func (r *Running) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(int(r.pidfd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Wait returns when the process has ended and all it wrote was passed on.
// The exit code of one that a signal ended is 128 and the signal's number.
func (r *Running) Wait() (code, signal int, err error) {
	defer r.pidfd.Close()
	return ExitOf(r.cmd.Wait())
}

// ExitOf tells an exit code and signal from what exec.Cmd.Wait returned.
func ExitOf(err error) (code, signal int, _ error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, 0, nil
	case !errors.As(err, &exit):
		return 0, 0, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), int(ws.Signal()), nil
	}
	return exit.ExitCode(), 0, nil
}

func command(sub string, std Streams) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"nodeagent", sub}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = std.In, std.Out, std.Err
	return cmd
}

// launch starts cmd, hands spec to it and waits until it has become its
// program or has said why not.
func launch(cmd *exec.Cmd, spec any, pidfd *os.File) error {
	b, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	specR, specW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer specR.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		specW.Close()
		return err
	}
	defer errR.Close()
	cmd.ExtraFiles = []*os.File{specR, errW}
	if pidfd != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, pidfd)
	}
	err = cmd.Start()
	errW.Close()
	if err != nil {
		specW.Close()
		return err
	}
	_, err = specW.Write(b)
	specW.Close()
	said, readErr := io.ReadAll(errR)
	if err == nil && readErr == nil && len(said) == 0 {
		return nil
	}
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()         // it was killed
	if len(said) > 0 {
		return errors.New(string(said))
	}
	return errors.Join(err, readErr)
}
