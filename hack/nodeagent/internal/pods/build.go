// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/container"
	"github.com/svcscope/svcscope/hack/nodeagent/internal/image"
)

// build makes the container's root file system and says how it runs.
func (c *Container) build(ctx context.Context) (*container.Spec, error) {
	img := c.pod.node.images[c.spec.Image]
	if img == nil {
		return nil, fmt.Errorf("image %s is not on this node, and the lab node agent pulls none", c.spec.Image)
	}
	c.pod.mu.Lock()
	c.status.ImageID = img.Digest
	c.pod.mu.Unlock()
	s, err := c.security(img)
	if err != nil {
		return nil, err
	}
	env, err := c.pod.environment(ctx, c.spec)
	if err != nil {
		return nil, err
	}
	s.Env = env.onto(img.Config.Env, c.pod.node.hostname)
	if s.Args = arguments(c.spec, img, env.value); len(s.Args) == 0 {
		return nil, errors.New("neither spec nor image says what to run")
	}
	if s.Dir = c.spec.WorkingDir; s.Dir == "" {
		s.Dir = img.Config.WorkingDir
	}
	if err := os.MkdirAll(filepath.Dir(c.pod.terminationLog(c.spec)), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.pod.terminationLog(c.spec), nil, 0o666); err != nil {
		return nil, err
	}
	if s.Mounts, err = c.pod.mounts(c.spec, s.ReadOnly); err != nil {
		return nil, err
	}
	s.Rootfs = filepath.Join(c.pod.dir, "rootfs", newID())
	if err := os.MkdirAll(s.Rootfs, 0o755); err != nil {
		return nil, err
	}
	return s, img.Unpack(s.Rootfs)
}

// arguments puts command and args of the spec in the place of the image's.
func arguments(c *corev1.Container, img *image.Image, env map[string]string) []string {
	command, args := c.Command, c.Args
	if len(command) == 0 {
		command = img.Config.Entrypoint
		if len(args) == 0 {
			args = img.Config.Cmd
		}
	}
	var out []string
	for _, a := range slices.Concat(command, args) {
		out = append(out, expand(a, env))
	}
	return out
}

// security says with which rights the container runs: what the container's
// securityContext leaves open is the pod's, then the image's.
func (c *Container) security(img *image.Image) (*container.Spec, error) {
	sc, pod := c.spec.SecurityContext, c.pod.obj.Spec.SecurityContext
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	s := &container.Spec{ReadOnly: isTrue(sc.ReadOnlyRootFilesystem)}
	s.NoNewPrivs = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	var err error
	if s.UID, s.GID, err = imageUser(img.Config.User); err != nil {
		return nil, err
	}
	for _, id := range []*int64{pod.RunAsUser, sc.RunAsUser} {
		if id != nil {
			s.UID = uint32(*id)
		}
	}
	for _, id := range []*int64{pod.RunAsGroup, sc.RunAsGroup} {
		if id != nil {
			s.GID = uint32(*id)
		}
	}
	nonRoot := isTrue(pod.RunAsNonRoot)
	if sc.RunAsNonRoot != nil {
		nonRoot = *sc.RunAsNonRoot
	}
	if nonRoot && s.UID == 0 {
		return nil, errors.New("container has runAsNonRoot and image will run as root")
	}
	var caps corev1.Capabilities
	if sc.Capabilities != nil {
		caps = *sc.Capabilities
	}
	if s.Caps, err = container.Caps(names(caps.Add), names(caps.Drop)); err != nil {
		return nil, err
	}
	// Without a profile in the spec a kubelet takes none.
	for _, p := range []*corev1.SeccompProfile{pod.SeccompProfile, sc.SeccompProfile} {
		if p != nil {
			s.Seccomp = p.Type == corev1.SeccompProfileTypeRuntimeDefault
		}
	}
	return s, nil
}

func names(caps []corev1.Capability) []string {
	var out []string
	for _, c := range caps {
		out = append(out, string(c))
	}
	return out
}

func isTrue(b *bool) bool { return b != nil && *b }

// imageUser reads "UID" or "UID:GID"; names would need the image's passwd.
func imageUser(s string) (uid, gid uint32, err error) {
	if s == "" {
		return 0, 0, nil
	}
	u, g, both := strings.Cut(s, ":")
	n, err := strconv.ParseUint(u, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("user %q of the image: want a number", s)
	}
	if !both {
		return uint32(n), 0, nil
	}
	m, err := strconv.ParseUint(g, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("user %q of the image: want numbers", s)
	}
	return uint32(n), uint32(m), nil
}
