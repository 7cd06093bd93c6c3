// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/container"
)

// file is one of a volume that the agent writes.
type file struct {
	content []byte
	mode    os.FileMode
}

// volume makes a volume and returns its path on the node, and when the first
// of its tokens expires.
func (p *pod) volume(ctx context.Context, v *corev1.Volume) (string, time.Time, error) {
	dir := filepath.Join(p.dir, "volumes", v.Name)
	switch {
	case v.HostPath != nil:
		return v.HostPath.Path, time.Time{}, hostPath(v.HostPath)
	case v.EmptyDir != nil:
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return "", time.Time{}, err
		}
		return dir, time.Time{}, os.Chmod(dir, 0o777)
	}
	files, expires, err := p.files(ctx, v)
	if err != nil {
		return "", expires, err
	}
	return dir, expires, writeFiles(dir, files)
}

// keepFresh writes a volume's tokens anew after 80 % of their life, until ctx
// ends.
func (p *pod) keepFresh(ctx context.Context, v *corev1.Volume, expires time.Time) {
	wait := time.Until(expires) * 8 / 10
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		_, expires, err := p.volume(ctx, v)
		if err != nil {
			p.log.Error("refresh token", "volume", v.Name, "err", err)
			wait = 10 * time.Second
			continue
		}
		wait = time.Until(expires) * 8 / 10
	}
}

// files returns a volume's files by path, and when the first of its tokens
// expires.
func (p *pod) files(ctx context.Context, v *corev1.Volume) (map[string]file, time.Time, error) {
	var sources []corev1.VolumeProjection
	var mode *int32
	switch {
	case v.ConfigMap != nil:
		s := v.ConfigMap
		mode = s.DefaultMode
		sources = []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: s.LocalObjectReference, Items: s.Items, Optional: s.Optional,
		}}}
	case v.Secret != nil:
		s := v.Secret
		mode = s.DefaultMode
		sources = []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: s.SecretName}, Items: s.Items, Optional: s.Optional,
		}}}
	case v.DownwardAPI != nil:
		mode = v.DownwardAPI.DefaultMode
		sources = []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}
	case v.Projected != nil:
		mode, sources = v.Projected.DefaultMode, v.Projected.Sources
	default:
		return nil, time.Time{}, errors.New("no source")
	}
	out := map[string]file{}
	var expires time.Time
	for _, s := range sources {
		files, end, err := p.projection(ctx, s, fileMode(mode, 0o644))
		if err != nil {
			return nil, expires, err
		}
		maps.Copy(out, files)
		if !end.IsZero() && (expires.IsZero() || end.Before(expires)) {
			expires = end
		}
	}
	return out, expires, nil
}

func fileMode(m *int32, other os.FileMode) os.FileMode {
	if m == nil {
		return other
	}
	return os.FileMode(*m)
}

func (p *pod) projection(ctx context.Context, s corev1.VolumeProjection, mode os.FileMode) (map[string]file, time.Time, error) {
	var none time.Time
	switch {
	case s.ServiceAccountToken != nil:
		f, expires, err := p.token(ctx, s.ServiceAccountToken)
		return map[string]file{s.ServiceAccountToken.Path: {f, mode}}, expires, err
	case s.ConfigMap != nil:
		data, err := p.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Optional)
		if err != nil {
			return nil, none, err
		}
		files, err := items(data, s.ConfigMap.Items, mode)
		return files, none, err
	case s.Secret != nil:
		data, err := p.secret(ctx, s.Secret.Name, s.Secret.Optional)
		if err != nil {
			return nil, none, err
		}
		files, err := items(data, s.Secret.Items, mode)
		return files, none, err
	case s.DownwardAPI != nil:
		out := map[string]file{}
		for _, i := range s.DownwardAPI.Items {
			if i.FieldRef == nil {
				return nil, none, fmt.Errorf("downwardAPI %s: only fieldRef is supported", i.Path)
			}
			v, err := p.field(i.FieldRef.FieldPath)
			if err != nil {
				return nil, none, err
			}
			out[i.Path] = file{[]byte(v), fileMode(i.Mode, mode)}
		}
		return out, none, nil
	}
	return nil, none, errors.New("a projection without a source")
}

func items(data map[string][]byte, list []corev1.KeyToPath, mode os.FileMode) (map[string]file, error) {
	out := map[string]file{}
	if list == nil {
		for k, v := range data {
			out[k] = file{v, mode}
		}
		return out, nil
	}
	for _, i := range list {
		v, ok := data[i.Key]
		if !ok {
			return nil, fmt.Errorf("no key %q", i.Key)
		}
		out[i.Path] = file{v, fileMode(i.Mode, mode)}
	}
	return out, nil
}

// token asks for a token of the pod's ServiceAccount that is good as long as
// the pod is there.
func (p *pod) token(ctx context.Context, t *corev1.ServiceAccountTokenProjection) ([]byte, time.Time, error) {
	r := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: t.ExpirationSeconds,
		BoundObjectRef:    &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.obj.Name, UID: p.obj.UID},
	}}
	if t.Audience != "" {
		r.Spec.Audiences = []string{t.Audience}
	}
	r, err := p.node.client.CoreV1().ServiceAccounts(p.obj.Namespace).CreateToken(ctx, p.obj.Spec.ServiceAccountName, r, metav1.CreateOptions{})
	if err != nil {
		return nil, time.Time{}, err
	}
	return []byte(r.Status.Token), r.Status.ExpirationTimestamp.Time, nil
}

// writeFiles makes a volume's folder be these files. A reader sees the old
// ones or the new ones: the names lead by way of one link that is switched.
func writeFiles(dir string, files map[string]file) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := os.MkdirTemp(dir, "..data-")
	if err != nil {
		return err
	}
	if err := os.Chmod(data, 0o755); err != nil {
		return err
	}
	names := map[string]bool{}
	for name, f := range files {
		path := filepath.Join(data, name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leads out of the volume", name)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.content, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(path, f.mode); err != nil {
			return err
		}
		first, _, _ := strings.Cut(name, "/")
		names[first] = true
	}
	old, _ := os.Readlink(filepath.Join(dir, "..data")) // none the first time
	if err := relink(filepath.Base(data), filepath.Join(dir, "..data")); err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if err := relink("..data/"+n, filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func relink(target, path string) error {
	tmp := path + "_tmp"
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// mounts returns a container's mounts, outer ones first: its volumes, and the
// files that a kubelet gives every container.
func (p *pod) mounts(c *corev1.Container, readOnlyRoot bool) ([]container.Mount, error) {
	var out []container.Mount
	for _, m := range c.VolumeMounts {
		source, ok := p.volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("no volume %q", m.Name)
		}
		if m.SubPath != "" {
			if !filepath.IsLocal(m.SubPath) {
				return nil, fmt.Errorf("subPath %q leads out of the volume", m.SubPath)
			}
			source = filepath.Join(source, m.SubPath)
		}
		out = append(out, container.Mount{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	etc := filepath.Join(p.dir, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		content := []byte(p.node.hostname + "\n")
		if name != "hostname" {
			// With hostNetwork, and without a DNS of the cluster, these
			// are the node's.
			var err error
			if content, err = os.ReadFile("/etc/" + name); err != nil {
				return nil, err
			}
		}
		path := filepath.Join(etc, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return nil, err
		}
		out = append(out, container.Mount{Source: path, Target: "/etc/" + name, ReadOnly: readOnlyRoot})
	}
	out = append(out, container.Mount{Source: p.terminationLog(c), Target: c.TerminationMessagePath})
	slices.SortStableFunc(out, func(a, b container.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return out, nil
}
