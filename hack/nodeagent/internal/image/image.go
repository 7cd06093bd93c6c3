// SPDX-License-Identifier: Apache-2.0

// Package image makes root file systems from images that lie on this machine:
// OCI archives, as buildah writes them, and plain folders. Nothing is pulled.
package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Image is a file system and what its maker says of running it.
type Image struct {
	// Config is the image's; for a folder it is what FolderConfig says.
	Config v1.Config
	// Digest is the manifest's, empty for a folder.
	Digest string

	image v1.Image // nil for a folder
	dir   string
}

// FolderConfig is the configuration of a plain folder: the program
// /bin/svcscope as root.
func FolderConfig() v1.Config {
	return v1.Config{Entrypoint: []string{"/bin/svcscope"}, Env: []string{"PATH=/bin"}, User: "0"}
}

// Open opens the folder or OCI archive at path. An archive is unpacked to
// scratch, which has to stay as long as the image is used.
func Open(path, scratch string) (*Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if info.IsDir() {
		return &Image{Config: FolderConfig(), dir: path}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer f.Close()
	if err := untar(f, scratch); err != nil {
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	i := &Image{}
	if err := i.load(scratch); err != nil {
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	return i, nil
}

func (i *Image) load(dir string) error {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	i.image, i.Digest, err = pick(index)
	if err != nil {
		return err
	}
	c, err := i.image.ConfigFile()
	if err != nil {
		return err
	}
	if c.OS != runtime.GOOS || c.Architecture != runtime.GOARCH {
		return fmt.Errorf("it is for %s/%s, this machine is %s/%s", c.OS, c.Architecture, runtime.GOOS, runtime.GOARCH)
	}
	i.Config = c.Config
	return nil
}

// pick returns this platform's image, or the only one.
func pick(index v1.ImageIndex) (v1.Image, string, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, "", err
	}
	for _, d := range m.Manifests {
		if p := d.Platform; len(m.Manifests) > 1 && (p == nil || p.OS != runtime.GOOS || p.Architecture != runtime.GOARCH) {
			continue
		}
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, "", err
			}
			return pick(inner)
		}
		image, err := index.Image(d.Digest)
		return image, d.Digest.String(), err
	}
	return nil, "", fmt.Errorf("no image for %s/%s in it", runtime.GOOS, runtime.GOARCH)
}

// Unpack writes the image's files to dir, an empty folder.
func (i *Image) Unpack(dir string) error {
	if i.image == nil {
		if err := os.CopyFS(dir, os.DirFS(i.dir)); err != nil {
			return fmt.Errorf("image %s: %w", i.dir, err)
		}
		return nil
	}
	r := mutate.Extract(i.image)
	defer r.Close()
	if err := untar(r, dir); err != nil {
		return fmt.Errorf("image %s: %w", i.Digest, err)
	}
	return nil
}

// untar writes files, folders and links below dir; nothing in the stream can
// lead out of it. Owners become the caller, who is root in a lab that has no
// other user.
func untar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := entry(root, h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func entry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(filepath.Clean("/"+h.Name), "/")
	if name == "" {
		return nil
	}
	mode := h.FileInfo().Mode()
	if h.Typeflag != tar.TypeDir {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(strings.TrimPrefix(filepath.Clean("/"+h.Linkname), "/"), name)
	default:
		return fmt.Errorf("files of type %q can't be made", h.Typeflag)
	}
	return root.Chmod(name, mode)
}
