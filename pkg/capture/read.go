// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// limits are of what is read: files come from others.
type limits struct {
	entry   int64 // bytes of one entry
	total   int64 // of all of them
	entries int
	objects int // JSON objects in one entry, each of which takes some hundred bytes here
}

// readLimits are far above a node with 10,000 Services of 3 endpoints in both families.
func readLimits() limits {
	return limits{entry: 256 << 20, total: 1 << 30, entries: 64, objects: 8 << 20}
}

// Read reads what Write has written. Whatever the bytes are, it returns a Snapshot or
// an error that says what is wrong with which part; the caller knows which file it is.
func Read(r io.Reader) (*Snapshot, error) { return read(r, readLimits()) }

func read(r io.Reader, most limits) (*Snapshot, error) {
	z, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("not a compressed file: %w", cause(err))
	}
	return readTar(&countedReader{r: z, left: most.total}, most)
}

// readTar reads what is in the compressed file.
func readTar(r io.Reader, most limits) (*Snapshot, error) {
	in := &reading{most: most}
	if err := in.entries(tar.NewReader(r)); err != nil {
		return nil, err
	}
	// What follows the last entry is read for the check sum's sake.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, cause(err)
	}
	if err := in.complete(); err != nil {
		return nil, err
	}
	return in.snapshot, nil
}

// errLarge says that a limit is passed.
var errLarge = errors.New("larger than any snapshot is")

// countedReader ends with errLarge after so many bytes.
type countedReader struct {
	r    io.Reader
	left int64
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.left -= int64(n); c.left < 0 {
		return n, errLarge
	}
	return n, err
}

// cause makes an end of bytes that comes too early a damaged file.
func cause(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the file ends too early")
	}
	return err
}

// reading is a Snapshot of which some entries were read.
type reading struct {
	most     limits
	header   *wireHeader
	snapshot *Snapshot
	seen     []string
	rules    map[string]Rules
}

func (in *reading) entries(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cause(err)
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("entry %q is no file", h.Name)
		case len(in.seen) == in.most.entries, h.Size > in.most.entry:
			return fmt.Errorf("entry %q: %w", h.Name, errLarge)
		case slices.Contains(in.seen, h.Name):
			return fmt.Errorf("entry %q is twice there", h.Name)
		}
		in.seen = append(in.seen, h.Name)
		b, err := io.ReadAll(t)
		if err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, cause(err))
		}
		if err := in.entry(h.Name, b); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

// entry takes one entry. The header is the first one and says which others there may
// be.
func (in *reading) entry(name string, b []byte) error {
	if in.header == nil {
		if name != headerEntry {
			return fmt.Errorf("not a snapshot of svcscope: the first entry is not %s", headerEntry)
		}
		return in.takeHeader(b)
	}
	for _, rules := range in.header.Rules {
		switch name {
		case rulesDir + rules + saveExt:
			return nil // it says the same to people
		case rulesDir + rules + jsonExt:
			return in.takeRules(rules, b)
		}
	}
	for _, report := range in.header.Reports {
		if name == reportsDir+report+jsonExt {
			return in.takeReport(report, b)
		}
	}
	switch {
	case name == apiEntry && in.header.API:
		return in.takeAPI(b)
	case name == flowsEntry && in.header.Flows:
		return in.takeFlows(b)
	}
	return fmt.Errorf("not one that %s names", headerEntry)
}

func (in *reading) takeHeader(b []byte) error {
	// Of another version no more is known than that it is one.
	var version struct {
		Format        string `json:"format"`
		FormatVersion int    `json:"formatVersion"`
		Svcscope      string `json:"svcscope"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return err
	}
	w := wireHeader{Format: version.Format, FormatVersion: version.FormatVersion, Svcscope: version.Svcscope}
	if w.Format == format && w.FormatVersion == FormatVersion {
		if err := in.decode(b, &w); err != nil {
			return err
		}
	}
	if err := w.check(); err != nil {
		return err
	}
	in.header, in.snapshot = &w, w.snapshot()
	in.snapshot.Reports = make(map[string]json.RawMessage)
	in.rules = make(map[string]Rules)
	return nil
}

func (in *reading) takeRules(name string, b []byte) error {
	var w wireRules
	if err := in.decode(b, &w); err != nil {
		return err
	}
	r, err := w.rules()
	if err != nil {
		return err
	}
	if is := rulesName(r.Set); is != name {
		return fmt.Errorf("it has the rules of %s", is)
	}
	in.rules[name] = r
	return nil
}

func (in *reading) takeAPI(b []byte) error {
	var w wireAPI
	if err := in.decode(b, &w); err != nil {
		return err
	}
	c, err := w.catalog()
	in.snapshot.Node.Catalog = c
	return err
}

func (in *reading) takeFlows(b []byte) error {
	var w wireFlows
	if err := in.decode(b, &w); err != nil {
		return err
	}
	in.snapshot.Node.Flows = w.tallies()
	return nil
}

func (in *reading) takeReport(name string, b []byte) error {
	if !json.Valid(b) {
		return errors.New("not JSON")
	}
	if err := gauge(b, in.most.objects); err != nil {
		return err
	}
	in.snapshot.Reports[name] = b
	return nil
}

// complete checks that nothing is missing.
func (in *reading) complete() error {
	if in.header == nil {
		return errors.New("not a snapshot of svcscope: it has no entry")
	}
	lacks := func(name string) error { return fmt.Errorf("entry %q is missing", name) }
	for _, name := range in.header.Rules {
		r, ok := in.rules[name]
		if !ok {
			return lacks(rulesDir + name + jsonExt)
		}
		in.snapshot.Node.Rules = append(in.snapshot.Node.Rules, r)
	}
	for _, name := range in.header.Reports {
		if in.snapshot.Reports[name] == nil {
			return lacks(reportsDir + name + jsonExt)
		}
	}
	if in.header.API && in.snapshot.Node.Catalog == nil {
		return lacks(apiEntry)
	}
	if in.header.Flows && in.snapshot.Node.Flows == nil {
		return lacks(flowsEntry)
	}
	return nil
}

// decode reads a JSON value that is an entry.
func (in *reading) decode(b []byte, v any) error {
	if err := gauge(b, in.most.objects); err != nil {
		return err
	}
	return unmarshal(b, v)
}

// gauge keeps out values of few bytes for which much memory would be needed: too many
// objects, and null in the place of one.
func gauge(b []byte, most int) error {
	objects, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == 'n'):
			objects++
		}
	}
	if objects > most {
		return errLarge
	}
	return nil
}
