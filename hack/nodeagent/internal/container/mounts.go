// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const hardened = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// maskedPaths are hidden from a container, as runtimes do.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// readOnlyPaths can't be written to in a container, as runtimes do.
func readOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// mounts makes the container's file system in the calling process's mount
// namespace and leaves the old one.
func (s *Spec) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(s.Rootfs, s.Rootfs, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind root file system: %w", err)
	}
	// A file system mounted over its own folder is reached by its path anew.
	root, err := os.OpenRoot(s.Rootfs)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	defer root.Close()
	if err := s.kernel(); err != nil {
		return err
	}
	if err := s.devices(); err != nil {
		return err
	}
	for _, m := range s.Mounts {
		if err := m.in(root); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if err := pivot(s.Rootfs); err != nil {
		return err
	}
	if err := restrict(); err != nil {
		return err
	}
	if !s.ReadOnly {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remount / read-only: %w", err)
	}
	return nil
}

// kernel mounts /proc and /sys. Both show the network namespace of who mounts
// them, so that of the node.
func (s *Spec) kernel() error {
	proc, sys := filepath.Join(s.Rootfs, "proc"), filepath.Join(s.Rootfs, "sys")
	for _, d := range []string{proc, sys} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", proc, "proc", hardened, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	err := unix.Mount("sysfs", sys, "sysfs", hardened|unix.MS_RDONLY, "")
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /sys: %w", err)
	}
	// In a user namespace the kernel may refuse a new one; runtimes bind
	// the node's then.
	if err := unix.Mount("/sys", sys, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /sys: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(unix.AT_FDCWD, sys, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make /sys read-only: %w", err)
	}
	return nil
}

// devices makes /dev with what every container has.
func (s *Spec) devices() error {
	dev := filepath.Join(s.Rootfs, "dev")
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		target := filepath.Join(dev, n)
		if err := os.WriteFile(target, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+n, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", n, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		name, fstype, data string
		flags              uintptr
	}{
		{"pts", "devpts", "newinstance,ptmxmode=0666,mode=0620", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"shm", "tmpfs", "mode=1777,size=65536k", hardened},
		{"mqueue", "mqueue", "", hardened},
	} {
		target := filepath.Join(dev, m.name)
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount /dev/%s: %w", m.name, err)
		}
	}
	return nil
}

// in makes the mount below root. A path of the image can't lead out of it.
func (m Mount) in(root *os.Root) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	rel := strings.TrimPrefix(filepath.Clean(m.Target), "/")
	if info.IsDir() {
		err = root.MkdirAll(rel, 0o755)
	} else {
		err = touch(root, rel)
	}
	if err != nil {
		return err
	}
	target, err := root.OpenFile(rel, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	path := fmt.Sprintf("/proc/self/fd/%d", target.Fd())
	if err := unix.Mount(m.Source, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	// The descriptor leads below the mount: the way to it is new.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, filepath.Join(root.Name(), rel), 0, &attr); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	return nil
}

func touch(root *os.Root, rel string) error {
	if _, err := root.Stat(rel); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.MkdirAll(filepath.Dir(rel), 0o755); err != nil {
		return err
	}
	f, err := root.Create(rel)
	if err != nil {
		return err
	}
	return f.Close()
}

// pivot makes the folder the root and lets go of everything else.
func pivot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	// Both on one point: the old root comes to lie on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return os.Chdir("/")
}

// restrict hides and protects what of /proc and /sys is the whole machine's.
func restrict() error {
	for _, p := range maskedPaths() {
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("mask: %w", err)
		case info.IsDir():
			err = unix.Mount("tmpfs", p, "tmpfs", unix.MS_RDONLY, "")
		default:
			err = unix.Mount("/dev/null", p, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	for _, p := range readOnlyPaths() {
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := unix.Mount(p, p, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", p, err)
		}
		if err := unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|hardened, ""); err != nil {
			return fmt.Errorf("remount %s read-only: %w", p, err)
		}
	}
	return nil
}
