// SPDX-License-Identifier: Apache-2.0

// Package scene is what the capture programs share: each scene has namespaces
// of its own, in which the program runs tools as their root.
package scene

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

const env = "SVCSCOPE_CAPTURE_SCENE"

// Run starts the calling program anew for each scene, with the same arguments,
// as root of new user, mount, PID and network namespaces. There Run calls
// capture with the one scene. The first scene that fails ends it.
func Run(scenes []string, capture func(scene string) error) error {
	if scene := os.Getenv(env); scene != "" {
		return capture(scene)
	}
	for _, scene := range scenes {
		if err := again(scene); err != nil {
			return fmt.Errorf("scene %s: %w", scene, err)
		}
	}
	return nil
}

func again(scene string) error {
	exe, err := os.Executable() // by its name, which the fixtures of nf_tables have
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), env+"="+scene)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// The network namespace last: the files of its tables then belong to
		// the user namespace's root.
		Cloneflags:   syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNET,
		Pdeathsig:    syscall.SIGKILL,
		UidMappings:  []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings:  []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	return cmd.Run()
}

// Tool runs a program to its end and returns its standard output. The error of
// one that fails has what it said on standard error.
func Tool(stdin string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return string(out), nil
}
