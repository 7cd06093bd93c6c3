// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
)

// RunDir holds the lab's private files: links to programs, keys, port
// cursors. It lies in a tmpfs that only the lab's processes see.
const RunDir = "/run/lab"

// InitMain is PID 1 of a lab: it makes the mounts, starts the supervisor and
// reaps. When it ends, the kernel ends every process of the lab.
func InitMain(stateDir string) error {
	if os.Getpid() != 1 {
		return errors.New("this command is the lab's own and not to be called")
	}
	if err := mounts(stateDir); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("lan")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", SuperviseSubcommand, stateDir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	for fd := uintptr(fdLock); fd <= fdLife; fd++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(fd, ""))
	}
	// The terminal of `lab up` sends its signals to the session leader only
	// if it is one; a plain `kill` must end the lab, not be ignored as PID 1
	// ignores what it does not handle.
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	for _, f := range cmd.ExtraFiles[1:] {
		f.Close()
	}
	go func() {
		<-sigs
		os.Exit(0)
	}()
	return reap(cmd.Process.Pid)
}

func reap(supervisor int) error {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == supervisor && ws.ExitStatus() != 0:
			return fmt.Errorf("supervisor ended with status %#x", int(ws))
		case pid == supervisor:
			return nil
		}
	}
}

// mounts gives the lab its own /run and /proc. Everything else of the file
// system stays what it is on the host.
func mounts(stateDir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// It may lie below /run; the descriptor still leads to it then.
	dir, err := os.Open(stateDir)
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	defer dir.Close()
	if err := unix.Mount("lab", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), stateDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind state folder %s: %w", stateDir, err)
	}
	for _, d := range []string{nsexec.Dir, RunDir, "/run/lock"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w; in a container it needs --privileged", err)
	}
	return guardSysctls()
}

// guardSysctls makes all sysctls but those of network namespaces read-only,
// and all of /sys: the rest would be the host's, which root may write to even
// from here.
func guardSysctls() error {
	for _, d := range []string{"/proc/sys", "/proc/sys/net"} {
		if err := unix.Mount(d, d, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", d, err)
		}
	}
	const ro = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", "/proc/sys", "", ro, ""); err != nil {
		return fmt.Errorf("remount /proc/sys read-only: %w", err)
	}
	// A mount that came from another user namespace may be locked as it is.
	err := unix.Mount("", "/sys", "", ro, "")
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remount /sys read-only: %w", err)
	}
	return nil
}

// linkPrograms makes a folder of links for the front of PATH and returns it.
func linkPrograms(dir string, links map[string]string) (string, error) {
	dir = filepath.Join(RunDir, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("link %s: %w", name, err)
		}
	}
	return dir, nil
}
