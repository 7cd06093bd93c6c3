// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"testing"
)

// image is an OCI image as its archive has it.
type image struct {
	digest string // of the manifest, sha256:<hex>
	size   int64  // of the manifest, bytes
	config config
	files  map[string]file // of all layers, by path without a slash at either end
}

// file is one entry of a layer.
type file struct {
	attributes string // "<type and mode> <uid>:<gid> <mtime, seconds>"
	data       []byte
}

type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"` // bytes
	Platform  platform `json:"platform"`
}

// index is all that an index of images may have.
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type config struct {
	Created      string    `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       execution `json:"config"`
}

// execution is decoded strictly: a field that is not here is an error.
type execution struct {
	User       string
	Env        []string
	Entrypoint []string
	Labels     map[string]string
}

func (e *execution) UnmarshalJSON(data []byte) error {
	type plain execution
	return strictly(data, (*plain)(e))
}

// strictly decodes JSON; a field that v does not have is an error.
func strictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// readImage reads an OCI archive of one image.
func readImage(t *testing.T, name string) image {
	t.Helper()
	blobs := readArchive(t, name)
	img := image{digest: top(t, blobs), files: map[string]file{}}
	img.size = int64(len(blobs[img.digest]))
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	decode(t, blobs[img.digest], &manifest)
	decode(t, blobs[manifest.Config.Digest], &img.config)
	for _, l := range manifest.Layers {
		z, err := gzip.NewReader(bytes.NewReader(blobs[l.Digest]))
		if err != nil {
			t.Fatalf("layer %s: %v", l.Digest, err)
		}
		walk(t, z, func(h *tar.Header, data []byte) {
			img.files[strings.Trim(path.Clean(h.Name), "/")] = file{
				attributes: fmt.Sprintf("%v %d:%d %d", h.FileInfo().Mode(), h.Uid, h.Gid, h.ModTime.Unix()),
				data:       data,
			}
		})
	}
	return img
}

// readIndex returns the index of images that an OCI archive holds, and its
// digest. It fails on a field beyond those that index has: nothing in it may
// depend on anything but the images.
func readIndex(t *testing.T, name string) (found index, digest string) {
	t.Helper()
	blobs := readArchive(t, name)
	digest = top(t, blobs)
	if err := strictly(blobs[digest], &found); err != nil {
		t.Fatalf("%v in %q", err, blobs[digest])
	}
	return found, digest
}

// top returns the digest of the one thing that an archive holds.
func top(t *testing.T, blobs map[string][]byte) string {
	t.Helper()
	var all struct {
		Manifests []descriptor `json:"manifests"`
	}
	decode(t, blobs["index.json"], &all)
	if len(all.Manifests) != 1 {
		t.Fatalf("the archive holds %d things, want 1", len(all.Manifests))
	}
	return all.Manifests[0].Digest
}

// readArchive returns an OCI archive's files: blobs by digest, which it checks,
// the others by name.
func readArchive(t *testing.T, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs := map[string][]byte{}
	walk(t, f, func(h *tar.Header, data []byte) {
		sum, isBlob := strings.CutPrefix(h.Name, "blobs/sha256/")
		if !isBlob || sum == "" {
			blobs[h.Name] = data
			return
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != sum {
			t.Errorf("blob %s has digest %s", sum, got)
		}
		blobs["sha256:"+sum] = data
	})
	return blobs
}

func walk(t *testing.T, r io.Reader, visit func(*tar.Header, []byte)) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("read tar: %v", err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatalf("read %s: %v", h.Name, err)
		}
		visit(h, data)
	}
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
}
