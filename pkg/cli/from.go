// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/capture"
)

// standardInput as the name of a file.
const standardInput = "-"

func fromFlag(cmd *cobra.Command, o *sourceOptions) {
	cmd.Flags().StringVar(&o.from, "from", "",
		"`file` that svcscope snapshot wrote, to read in place of this node; \"-\" is standard input")
}

// clashing is a flag that says where to read, and was given beside --from.
func (o *sourceOptions) clashing(cmd *cobra.Command) string {
	for _, name := range []string{"agent", "kube", "kubeconfig", "node-name"} {
		if o.from != "" && cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// readSnapshot reads the snapshot that --from names, once, and says so on stderr. From then
// on the time is that of the snapshot, in the node's zone: what is told as an age is as
// old as it was then.
func readSnapshot(e *env, o sourceOptions) (*capture.Snapshot, error) {
	if o.clash != "" {
		return nil, &usageError{fmt.Errorf("--from reads a file: not with --%s", o.clash)}
	}
	if e.snapshot != nil {
		return e.snapshot, nil
	}
	s, err := openSnapshot(e, o.from)
	if err != nil {
		return nil, err
	}
	e.snapshot, e.now = s, func() time.Time { return s.Node.Time }
	fmt.Fprintf(e.stderr, "source: %s%s\n", snapshotText(o.from, s), printable(kubeNote(nodeKube(s.Node))))
	return s, nil
}

// openSnapshot reads a file.
func openSnapshot(e *env, name string) (*capture.Snapshot, error) {
	in := e.stdin
	if name != standardInput {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		defer f.Close()
		in = f
	}
	s, err := capture.Read(in)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", fileText(name), err)
	}
	return s, nil
}

// fileText is a file's name as it is told.
func fileText(name string) string {
	if name == standardInput {
		return "on standard input"
	}
	return name
}

// snapshotText says which snapshot it is.
func snapshotText(name string, s *capture.Snapshot) string {
	masked := ""
	if s.Mask != "" {
		masked = ", its addresses masked"
	}
	return fmt.Sprintf("snapshot %s of node %s, read %s%s", fileText(name), printable(s.Node.Name), s.Node.Time.Format(time.RFC3339), masked)
}

// printable is a text of somebody else's file without what would control a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// readSnapshotReport takes a report out of a snapshot: the document that the node gave.
func readSnapshotReport[R any](e *env, o sourceOptions, s reportSource[R]) (R, error) {
	var r R
	snapshot, err := readSnapshot(e, o)
	if err != nil {
		return r, err
	}
	b, ok := snapshot.Reports[s.what]
	if !ok {
		err = errors.New(cmp.Or(printable(snapshot.Unreported[s.what]), "it has none"))
	} else if err = json.Unmarshal(printableJSON(b), &r); err == nil && s.head(&r).Source == "" {
		err = errors.New("not a report of " + s.what)
	}
	if err != nil {
		return r, fmt.Errorf("read %s from snapshot %s: %w", s.what, fileText(o.from), err)
	}
	return r, nil
}

// printableJSON is a JSON text in whose strings there is nothing that would control a
// terminal. Of what a node gives nothing changes.
func printableJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		n := 1
		switch r, size := utf8.DecodeRune(b); {
		case b[0] == '\\' && len(b) > 1:
			if n = 2; b[1] == 'u' {
				n = min(6, len(b))
			}
			if controls(b[:n]) {
				out, b = append(out, `\ufffd`...), b[n:]
				continue
			}
		case unicode.IsControl(r) && size > 1, r == 0x7f:
			out, b = append(out, `\ufffd`...), b[size:]
			continue
		default:
			n = size
		}
		out, b = append(out, b[:n]...), b[n:]
	}
	return out
}

// controls reports whether an escape in a JSON string is a control character, but for
// those that end lines and columns.
func controls(escape []byte) bool {
	switch escape[1] {
	case 'b', 'f', 'r':
		return true
	case 'u':
		n, err := strconv.ParseUint(string(escape[2:]), 16, 16)
		return err == nil && unicode.IsControl(rune(n)) && n != '\n' && n != '\t'
	}
	return false
}

// isTerminal reports whether people would see what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
