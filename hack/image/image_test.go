// SPDX-License-Identifier: Apache-2.0

// Package image_test builds the image with the real buildah and looks into it.
package image_test

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What the test's builds are told.
const (
	version  = "1.2.3-test.4"
	revision = "0123456789abcdef0123456789abcdef01234567"
	epoch    = 1_700_000_000
)

// paths are what the image is made from, seen from the repository's root.
var paths = []string{"Dockerfile", ".dockerignore", "go.mod", "go.sum", "cmd", "pkg", "hack/image.sh", "hack/cabundle"}

func TestImage(t *testing.T) {
	needBuildah(t)
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "elsewhere", "deep", "b")
	for _, dir := range []string{first, second} {
		copyTree(t, dir)
	}
	age(t, second)
	download(t, first)

	out := build(t, first, "022")
	// One architecture is enough the second time: what could differ does in
	// any, and the index has nothing but digests of the images, see below.
	again := build(t, second, "077", "--arch", "amd64")
	if got, want := again["amd64"].digest, out["amd64"].digest; want == "" || got != want {
		t.Errorf("digest %q in one folder, %q in another, at another time, with another umask", want, got)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			img := readImage(t, out[arch].file)
			if img.digest != out[arch].digest {
				t.Errorf("the archive's manifest has digest %s, the script said %s", img.digest, out[arch].digest)
			}
			checkConfig(t, img, arch)
			checkFiles(t, img)
			checkBinary(t, img.files["bin/svcscope"].data, arch)
			checkRoots(t, img.files["etc/ssl/certs/ca-certificates.crt"].data)
		})
	}
	t.Run("index", func(t *testing.T) {
		const manifest = "application/vnd.oci.image.manifest.v1+json"
		want := index{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
		for _, arch := range []string{"amd64", "arm64"} {
			want.Manifests = append(want.Manifests, descriptor{
				MediaType: manifest, Digest: out[arch].digest, Size: readImage(t, out[arch].file).size, Platform: platform{arch, "linux"},
			})
		}
		got, digest := readIndex(t, out["index"].file)
		if diff := cmp.Diff(want, got); diff != "" || digest != out["index"].digest {
			t.Errorf("index %s, the script said %s (-want +got):\n%s", digest, out["index"].digest, diff)
		}
	})
}

// needBuildah skips the test where buildah is not installed, and fails it where
// SVCSCOPE_REQUIRE_KERNEL=1 says that every test has to run.
func needBuildah(t *testing.T) {
	t.Helper()
	const reason = "need the tool buildah: apt-get install buildah"
	switch _, err := exec.LookPath("buildah"); {
	case err == nil:
	case os.Getenv("SVCSCOPE_REQUIRE_KERNEL") == "1":
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}

func checkConfig(t *testing.T, img image, arch string) {
	t.Helper()
	want := config{
		Created: time.Unix(epoch, 0).UTC().Format(time.RFC3339), Architecture: arch, OS: "linux",
		Config: execution{
			User: "0", Env: []string{"PATH=/bin"}, Entrypoint: []string{"/bin/svcscope"},
			Labels: map[string]string{
				"org.opencontainers.image.title":       "svcscope",
				"org.opencontainers.image.description": "What a Kubernetes node's kernel really does with Services",
				"org.opencontainers.image.source":      "https://github.com/svcscope/svcscope",
				"org.opencontainers.image.licenses":    "Apache-2.0",
				"org.opencontainers.image.version":     version,
				"org.opencontainers.image.revision":    revision,
			},
		},
	}
	if diff := cmp.Diff(want, img.config); diff != "" {
		t.Errorf("the image's configuration (-want +got):\n%s", diff)
	}
}

func checkFiles(t *testing.T, img image) {
	t.Helper()
	const dir = "drwxr-xr-x 0:0 1700000000"
	want := map[string]string{
		"bin": dir, "etc": dir, "etc/ssl": dir, "etc/ssl/certs": dir,
		"bin/svcscope":                      "-rwxr-xr-x 0:0 1700000000",
		"etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0:0 1700000000",
	}
	got := map[string]string{}
	for name, f := range img.files {
		got[name] = f.attributes
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the image's files (-want +got):\n%s", diff)
	}
}

// checkBinary says what a container runtime would find: a static executable
// of arch that knows its version.
func checkBinary(t *testing.T, data []byte, arch string) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("read the binary: %v", err)
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if f.Machine != machine || f.Type != elf.ET_EXEC {
		t.Errorf("the binary is %v for %v, want %v for %v", f.Type, f.Machine, elf.ET_EXEC, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary has a %v segment: it is not static", p.Type)
		}
	}
	if arch != runtime.GOARCH {
		return
	}
	path := filepath.Join(t.TempDir(), "svcscope")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	stdout, err := exec.Command(path, "version", "-o", "json").Output()
	if err != nil {
		t.Fatalf("run the binary: %v", err)
	}
	var got struct{ Version, Revision, Platform string }
	if err := json.Unmarshal(stdout, &got); err != nil {
		t.Fatalf("version -o json: %v in %q", err, stdout)
	}
	if got.Version != version || got.Revision != revision || got.Platform != "linux/"+arch {
		t.Errorf("the binary calls itself %+v", got)
	}
}

// checkRoots wants every block a CA's certificate, and about as many as
// Mozilla has.
func checkRoots(t *testing.T, data []byte) {
	t.Helper()
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !cert.IsCA {
			t.Errorf("block %d of the CA bundle: not a CA's certificate: %v", n, err)
		}
		n++
	}
	if n < 80 {
		t.Errorf("the CA bundle has %d certificates", n)
	}
}

// copyTree copies paths to dir.
func copyTree(t *testing.T, dir string) {
	t.Helper()
	for _, p := range paths {
		err := filepath.WalkDir(filepath.Join("../..", p), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel("../..", path)
			if err != nil {
				return err
			}
			to := filepath.Join(dir, rel)
			info, err := d.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, data, info.Mode().Perm())
		})
		if err != nil {
			t.Fatalf("copy %s: %v", p, err)
		}
	}
}

// age makes every file of dir another's, as far as times and umask go.
func age(t *testing.T, dir string) {
	t.Helper()
	then := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, then, then)
	})
	if err != nil {
		t.Fatalf("age %s: %v", dir, err)
	}
}

// download fetches the roots' module, should the cache not have it yet: what
// follows has no network.
func download(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("go", "mod", "download")
	cmd.Dir = filepath.Join(dir, "hack", "cabundle")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
}

// built is one line of what hack/image.sh prints.
type built struct{ digest, file string }

// build runs hack/image.sh of the tree dir in an empty network namespace, with
// nothing in /var and /run, and nothing there afterwards. args are the script's.
// It returns what was built by architecture, and the index.
func build(t *testing.T, dir, umask string, args ...string) map[string]built {
	t.Helper()
	const script = `umask "$1" && shift && mount -t tmpfs none /var && mount -t tmpfs none /run && hack/image.sh "$@" out &&
		find /var /run -mindepth 1 | sed 's/^/left behind in the system: /'`
	line := append([]string{"--net", "--mount", "sh", "-c", script, "sh", umask}, args...)
	if os.Getuid() != 0 {
		line = append([]string{"--user", "--map-root-user"}, line...)
	}
	cmd := exec.Command("unshare", line...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "VERSION=v"+version, "REVISION="+revision,
		"SOURCE_DATE_EPOCH="+strconv.Itoa(epoch), "GOPROXY=off", "GOTOOLCHAIN=local")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("hack/image.sh: %v\n%s", err, stderr.String())
	}
	out := map[string]built{}
	for line := range strings.Lines(string(stdout)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			t.Fatalf("hack/image.sh printed %q", line)
		}
		out[f[0]] = built{digest: f[1], file: f[2]}
	}
	return out
}
