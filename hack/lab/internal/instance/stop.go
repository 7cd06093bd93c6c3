// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// aLongTimeAgo wakes a blocked read when set as its deadline.
var aLongTimeAgo = time.Unix(1, 0)

// Down ends a running lab and removes its state folder, or only the folder
// where the lab died. It returns when no process of the lab is left. It
// reports whether there was anything.
func Down(s State) (bool, error) {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	lock, err := s.Lock()
	if errors.Is(err, ErrUp) {
		if err := s.kill(); err != nil {
			return true, err
		}
		lock, err = s.Lock()
	}
	if err != nil {
		return true, err
	}
	defer lock.Close()
	return true, s.Remove()
}

// kill ends PID 1 of a lab and waits until the kernel has ended the others:
// a pidfd turns readable only after that (exit_notify in kernel/exit.c).
func (s State) kill() error {
	var p Process
	if err := ReadJSON(s.Path("process.json"), &p); err != nil {
		return fmt.Errorf("lab %s is being started or stopped by another process: %w", s.Name, err)
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lab %s: process %d: %w", s.Name, p.PID, err)
	}
	defer unix.Close(fd)
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("lab %s: kill process %d: %w", s.Name, p.PID, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("lab %s: wait for process %d: %w", s.Name, p.PID, err)
		case n == 0:
			return fmt.Errorf("lab %s: process %d does not end", s.Name, p.PID)
		}
		return nil
	}
}
