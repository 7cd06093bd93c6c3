// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is what this program does as InitCommand or ExecCommand. It does not
// return.
func Main(sub string) {
	runtime.LockOSThread()
	unix.CloseOnExec(fdSpec)
	unix.CloseOnExec(fdErr)
	var err error
	if sub == InitCommand {
		err = initMain()
	} else {
		err = execMain()
	}
	fmt.Fprint(os.NewFile(fdErr, "errors"), err)
	os.Exit(127)
}

func initMain() error {
	var s Spec
	if err := json.NewDecoder(os.NewFile(fdSpec, "spec")).Decode(&s); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	if err := s.mounts(); err != nil {
		return err
	}
	return s.run()
}

func execMain() error {
	var p Process
	if err := json.NewDecoder(os.NewFile(fdSpec, "spec")).Decode(&p); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	unix.CloseOnExec(fdPid)
	// A mount namespace can be joined only by who shares no root and
	// working directory with another thread.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare root: %w", err)
	}
	if err := unix.Setns(fdPid, unix.CLONE_NEWNS|unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("join the container's namespaces: %w", err)
	}
	return p.run()
}

// run makes the calling process the program. It returns only with an error.
func (p *Process) run() error {
	unix.Umask(0o022)
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	path := ""
	for _, kv := range p.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	program, err := exec.LookPath(p.Args[0])
	if err != nil {
		return err
	}
	if err := p.become(); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", program, unix.Exec(program, p.Args, p.Env))
}
