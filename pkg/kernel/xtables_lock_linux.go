// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LockEventKind is what happened to the lock file.
type LockEventKind uint8

// The kinds of events.
const (
	LockOpened   LockEventKind = iota + 1 // somebody opened it: waits for the lock, or holds it
	LockClosed                            // somebody closed it, which drops the lock
	LockOverflow                          // events were lost
)

// LockEvent is one event of the lock file, with the time at which it was read.
type LockEvent struct {
	Kind LockEventKind
	At   time.Time
}

// LockWatch tells when the xtables lock file is opened and closed, by inotify:
// iptables-legacy opens it before it reads a table that it will write, and
// closes it when the table is written and its counters are added again. The
// file itself is never opened, and so never locked.
//
// Openings that follow each other while the watch is not being read may be
// told as one, and so may closings: the kernel merges equal events.
type LockWatch struct {
	events chan LockEvent
	notes  *os.File // of inotify
	path   string
	file   os.FileInfo
	closed atomic.Bool
}

const (
	lockQueue    = 1024
	inotifyEvent = 16 // struct inotify_event before its name
	lockMask     = unix.IN_OPEN | unix.IN_CLOSE_WRITE | unix.IN_CLOSE_NOWRITE |
		unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// WatchLock watches the lock file at path. ErrAbsent says that there is none,
// or that it was removed and only a mount keeps it.
func WatchLock(path string) (*LockWatch, error) {
	info, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, lockMask); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	w := &LockWatch{events: make(chan LockEvent, lockQueue), notes: os.NewFile(uintptr(fd), "inotify"), path: path, file: info}
	if !w.current() { // it was replaced in between
		_ = w.notes.Close()
		return nil, fmt.Errorf("watch %s: %w", path, ErrAbsent)
	}
	go w.run()
	return w, nil
}

// lockFile returns what is at path, if it is a file that a path leads to.
func lockFile(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("watch %s: %w", path, ErrAbsent)
	case err != nil:
		return nil, fmt.Errorf("watch: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("watch %s: %v is no file: %w", path, info.Mode().Type(), ErrAbsent)
	}
	// Of a file that is mounted by itself, the path stays when it is removed.
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Nlink == 0 {
		return nil, fmt.Errorf("watch %s: removed: %w", path, ErrAbsent)
	}
	return info, nil
}

// Events yields what happens, and is closed when the file is no longer the one
// at the path, when the kernel ends the watch, or by Close: whoever wants to
// know more calls WatchLock again.
func (w *LockWatch) Events() <-chan LockEvent { return w.events }

// Close ends the watch.
func (w *LockWatch) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	if err := w.notes.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("end the watch of %s: %w", w.path, err)
	}
	return nil
}

func (w *LockWatch) run() {
	defer close(w.events)
	defer func() { _ = w.notes.Close() }()
	defer w.closed.Store(true)
	buf := make([]byte, 4096)
	for {
		// The runtime's poller waits: a call that waits in the kernel keeps sysmon awake
		// for 10 ms each time, every 20 µs at first, in the midst of a writer's session.
		n, err := w.notes.Read(buf)
		if err != nil || !w.deliver(buf[:n], time.Now()) {
			return
		}
	}
}

// deliver hands on the events in b. It reports whether the watch goes on.
func (w *LockWatch) deliver(b []byte, now time.Time) bool {
	more := true
	for len(b) >= inotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		name := int(binary.NativeEndian.Uint32(b[12:]))
		switch {
		case mask&unix.IN_OPEN != 0:
			w.send(LockEvent{LockOpened, now})
		case mask&(unix.IN_CLOSE_WRITE|unix.IN_CLOSE_NOWRITE) != 0:
			w.send(LockEvent{LockClosed, now})
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.send(LockEvent{LockOverflow, now})
		case mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
			more = false
		case !w.current(): // moved or removed: one with the same name may be new
			more = false
		}
		b = b[min(inotifyEvent+name, len(b)):]
	}
	return more && !w.closed.Load()
}

// send hands on an event. A reader that has slept too long learns that it has
// missed some by an overflow, which takes the place of the oldest.
func (w *LockWatch) send(e LockEvent) {
	for {
		select {
		case w.events <- e:
			return
		default:
		}
		select {
		case <-w.events:
			e = LockEvent{LockOverflow, e.At}
		default:
		}
	}
}

// current reports whether the path still leads to the file that is watched.
func (w *LockWatch) current() bool {
	info, err := lockFile(w.path)
	return err == nil && os.SameFile(info, w.file)
}
