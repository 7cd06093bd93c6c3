// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// readFile is os.ReadFile for files of /proc that are read often. Package os has the
// runtime watch every file that can be polled, and those of /proc, which are always
// ready, wake the thread that waits for sockets, each time: on a busy node that is
// a switch of a processor which somebody else was using.
func readFile(path string) ([]byte, error) {
	f := keptFile{path: path}
	defer f.close()
	return f.read()
}

// keptFile is a file that stays open from one reading to the next. It is for one
// goroutine.
type keptFile struct {
	path string
	fd   int
	open bool
}

// read reads the file from its beginning. One that cannot be read any more, as its module
// is gone, is opened anew.
func (f *keptFile) read() ([]byte, error) {
	if f.open {
		if b, err := f.content(); err == nil {
			return b, nil
		}
		f.close()
	}
	fd, err := retried(func() (int, error) { return unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, f.failed("open", err)
	}
	f.fd, f.open = fd, true
	b, err := f.content()
	if err != nil {
		f.close()
	}
	return b, err
}

func (f *keptFile) close() {
	if f.open {
		_ = unix.Close(f.fd)
		f.open = false
	}
}

func (f *keptFile) failed(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

func (f *keptFile) content() ([]byte, error) {
	b := make([]byte, 0, 1<<10)
	for {
		n, err := retried(func() (int, error) { return unix.Pread(f.fd, b[len(b):cap(b)], int64(len(b))) })
		if err != nil {
			return nil, f.failed("read", err)
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(b, 0)[:len(b)] // more room
		}
	}
}

// retried calls a system call until no signal interrupts it.
func retried(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
