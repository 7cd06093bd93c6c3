// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadFile compares what is read with what package os reads, of files that are empty,
// that fill the first buffer, and that are larger.
func TestReadFile(t *testing.T) {
	for _, n := range []int{0, 1, 1<<10 - 1, 1 << 10, 1<<10 + 1, 100_000} {
		path := filepath.Join(t.TempDir(), "file")
		want := bytes.Repeat([]byte("0123456"), n/7+1)[:n]
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %d, %v", n, len(got), err)
		}
	}
	const version = "/proc/version"
	want, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readFile(version); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %q, %v", version, got, err)
	}
}

// TestKeptFile: each reading has what the file has now, and one that is gone is opened
// anew.
func TestKeptFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := keptFile{path: path}
	defer f.close()
	if _, err := f.read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
	for _, text := range []string{"nat\n", "nat\nfilter\n", ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := f.read(); err != nil || string(b) != text {
			t.Errorf("got %q, %v, want %q", b, err, text)
		}
	}
	folder, err := os.Open(t.TempDir()) // stands for a file that cannot be read any more
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	f.close()
	if f.fd, err = unix.Dup(int(folder.Fd())); err != nil {
		t.Fatal(err)
	}
	f.open = true
	if err := os.WriteFile(path, []byte("raw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := f.read(); err != nil || string(b) != "raw\n" {
		t.Errorf("got %q, %v of a file that was opened anew", b, err)
	}
}

func TestReadFileFails(t *testing.T) {
	var path *fs.PathError
	if _, err := readFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &path) {
		t.Errorf("got %v, want that it does not exist", err)
	}
	if _, err := readFile(t.TempDir()); err == nil || !errors.As(err, &path) || path.Op != "read" {
		t.Errorf("got %v, want that a folder cannot be read", err)
	}
}
