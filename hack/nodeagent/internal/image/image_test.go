// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tarball packs files by header; a regular file's content is its name.
func tarball(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// archive writes an OCI archive of images, by architecture, and returns its
// path.
func archive(t *testing.T, arches ...string) string {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range arches {
		layer := static.NewLayer(tarball(t,
			tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
			tar.Header{Name: "bin/" + a, Typeflag: tar.TypeReg, Mode: 0o755},
		), types.OCIUncompressedLayer)
		img, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			t.Fatal(err)
		}
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{
			OS: "linux", Architecture: a, Config: v1.Config{Entrypoint: []string{"/bin/" + a}, User: "0"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: a})); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			info, _ := d.Info()
			out = append(out, info.Mode().String()+" "+rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestArchive(t *testing.T) {
	here := runtime.GOARCH
	for name, arches := range map[string][]string{"one": {here}, "several": {"mips", here}} {
		t.Run(name, func(t *testing.T) {
			i, err := Open(archive(t, arches...), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"/bin/" + here}, i.Config.Entrypoint); diff != "" {
				t.Errorf("entrypoint (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(i.Digest, "sha256:") {
				t.Errorf("digest is %q", i.Digest)
			}
			dir := t.TempDir()
			if err := i.Unpack(dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"-rwxr-xr-x bin/" + here}, list(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Open(archive(t, "mips"), t.TempDir()); err == nil || !strings.Contains(err.Error(), "mips") {
		t.Errorf("an image for another machine: %v", err)
	}
	if _, err := Open(archive(t, "mips", "sparc"), t.TempDir()); err == nil {
		t.Error("an archive without an image for this machine is no error")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), t.TempDir()); err == nil {
		t.Error("an archive that is not there is no error")
	}
}

func TestFolder(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	i, err := Open(src, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := i.Unpack(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"-rwxr-xr-x f"}, list(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestUntarStaysInside(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"link out": {
			{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"},
			{Name: "out/nodeagent-escaped", Typeflag: tar.TypeReg, Mode: 0o644},
		},
		"hard link out": {{Name: "passwd", Typeflag: tar.TypeLink, Linkname: "../../../../../../etc/passwd"}},
		"device":        {{Name: "null", Typeflag: tar.TypeChar}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := untar(bytes.NewReader(tarball(t, headers...)), dir); err == nil {
				t.Errorf("no error; there are %v", list(t, dir))
			}
			if _, err := os.Lstat("/tmp/nodeagent-escaped"); err == nil {
				t.Error("a file was made outside")
			}
		})
	}
	dir := t.TempDir()
	up := tarball(t, tar.Header{Name: "../../up", Typeflag: tar.TypeReg, Mode: 0o600}, tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "up"})
	if err := untar(bytes.NewReader(up), dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Lrwxrwxrwx link", "-rw------- up"}, list(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
