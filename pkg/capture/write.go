// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Names of a file's entries.
const (
	headerEntry = "snapshot.json" // the first one
	apiEntry    = "api.json"
	flowsEntry  = "flows.json"
	rulesDir    = "rules/"
	reportsDir  = "reports/"
	jsonExt     = ".json"
	saveExt     = ".save"
)

// Write writes s as a compressed tar. The same Snapshot always gives the same bytes.
func Write(w io.Writer, s *Snapshot) error {
	z := gzip.NewWriter(w)
	a := &archive{tar: tar.NewWriter(z), time: s.Node.Time}
	if err := errors.Join(a.snapshot(s), a.tar.Close(), z.Close()); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// archive is a tar that is being written.
type archive struct {
	tar  *tar.Writer
	time time.Time
	buf  bytes.Buffer // of one entry
}

func (a *archive) snapshot(s *Snapshot) error {
	if err := a.json(headerEntry, newWireHeader(s), "  "); err != nil {
		return err
	}
	for i := range s.Node.Rules {
		r := &s.Node.Rules[i]
		name := rulesDir + rulesName(r.Set)
		if err := a.json(name+jsonExt, newWireRules(r), ""); err != nil {
			return err
		}
		a.buf.Reset()
		if err := errors.Join(writeSave(&a.buf, s, r), a.entry(name+saveExt)); err != nil {
			return err
		}
	}
	if s.Node.Catalog != nil {
		if err := a.json(apiEntry, newWireAPI(s.Node.Catalog), ""); err != nil {
			return err
		}
	}
	if s.Node.Flows != nil {
		if err := a.json(flowsEntry, newWireFlows(s.Node.Flows), ""); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(s.Reports) {
		a.buf.Reset()
		a.buf.Write(bytes.TrimSpace(s.Reports[name]))
		a.buf.WriteByte('\n')
		if err := a.entry(reportsDir + name + jsonExt); err != nil {
			return err
		}
	}
	return nil
}

// json writes an entry that is v.
func (a *archive) json(name string, v any, indent string) error {
	a.buf.Reset()
	e := json.NewEncoder(&a.buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return a.entry(name)
}

// entry writes what is in the buffer.
func (a *archive) entry(name string) error {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: int64(a.buf.Len()), Mode: 0o644, ModTime: a.time.UTC().Truncate(time.Second),
	}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.tar.Write(a.buf.Bytes())
	return err
}
