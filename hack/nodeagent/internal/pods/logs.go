// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// logFile is a container's log, one line for each line of output: time,
// stream, F or P for a line that goes on, and the text.
type logFile struct {
	f       *os.File
	streams []*lineWriter

	mu sync.Mutex // guards writes, so that lines stay whole
}

// openLog begins a log for the container's next start. That of the start
// before stays, older ones go.
func (c *Container) openLog() (*logFile, error) {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	dir := filepath.Join(c.pod.dir, "logs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, c.spec.Name+"-*.log")
	if err != nil {
		return nil, err
	}
	if c.previous != "" {
		if err := os.Remove(c.previous); err != nil {
			return nil, err
		}
	}
	c.previous, c.log = c.log, f.Name()
	return &logFile{f: f}, nil
}

// LogPath returns the log of the container's present or last start, or of the
// one before.
func (c *Container) LogPath(previous bool) (string, error) {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	path := c.log
	if previous {
		path = c.previous
	}
	if path == "" {
		return "", fmt.Errorf("no log of container %s", c.spec.Name)
	}
	return path, nil
}

// Running reports whether the log at path may still grow.
func (c *Container) Running(path string) bool {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.running != nil && c.log == path
}

// Close writes what came without an end of line. The writers are done.
func (l *logFile) Close() error {
	var errs []error
	for _, w := range l.streams {
		if w.part.Len() > 0 {
			errs = append(errs, w.flush("P"))
		}
	}
	return errors.Join(append(errs, l.f.Close())...)
}

func (l *logFile) stream(name string) io.Writer {
	w := &lineWriter{log: l, name: name}
	l.streams = append(l.streams, w)
	return w
}

// maxLine is how long a line may get before it is written in parts.
const maxLine = 16 << 10

// lineWriter cuts what a process writes into lines.
type lineWriter struct {
	log  *logFile
	name string
	part bytes.Buffer
}

// Write implements io.Writer.
func (w *lineWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			w.part.WriteByte(b)
			if w.part.Len() < maxLine {
				continue
			}
		}
		tag := "F"
		if b != '\n' {
			tag = "P"
		}
		if err := w.flush(tag); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *lineWriter) flush(tag string) error {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	_, err := fmt.Fprintf(w.log.f, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), w.name, tag, w.part.Bytes())
	w.part.Reset()
	return err
}

// tail returns the text of the last lines of a log, up to n bytes.
func tail(path string, n int) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []byte
	for line := range bytes.Lines(b) {
		if parts := bytes.SplitN(line, []byte(" "), 4); len(parts) == 4 {
			text := parts[3]
			if string(parts[2]) == "P" {
				text = bytes.TrimSuffix(text, []byte("\n"))
			}
			out = append(out, text...)
		}
	}
	return out[max(0, len(out)-n):]
}
