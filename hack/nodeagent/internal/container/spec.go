// SPDX-License-Identifier: Apache-2.0

// Package container runs a process as a container runtime would: in mount,
// PID and IPC namespaces of its own, on its own root file system, with exactly
// the capabilities, no_new_privs and seccomp filter that are asked for. The
// network, UTS, cgroup and user namespaces are the caller's, as for a pod with
// hostNetwork.
//
// The work is done by this very program, started anew: main calls Main when
// its first argument is InitCommand or ExecCommand.
package container

// Spec says what a container is. It goes to the new process as JSON.
type Spec struct {
	// Rootfs is a folder that belongs to this container alone.
	Rootfs string
	// ReadOnly makes the root file system read-only.
	ReadOnly bool
	// Mounts are made in this order.
	Mounts []Mount
	Process
}

// Mount is a bind mount of a file or folder.
type Mount struct {
	// Source is a path of the caller's.
	Source string
	// Target is a path in the container; it is made where it is missing.
	Target string
	// ReadOnly makes this mount, not those below it, read-only.
	ReadOnly bool
}

// Process says how a program runs, the container's own or a further one.
type Process struct {
	// Args are the program, looked for on the PATH of Env, and its arguments.
	Args []string
	// Env is the whole environment, as NAME=value.
	Env []string
	// Dir is the working directory in the container.
	Dir string
	// UID and GID are the user's and the group's numbers.
	UID, GID uint32
	// Caps are names as in a pod's spec, without "CAP_". They become the
	// bounding set and, for UID 0, the permitted and effective sets;
	// inheritable and ambient sets are empty.
	Caps []string
	// NoNewPrivs sets no_new_privs.
	NoNewPrivs bool
	// Seccomp applies the filter of Policy.
	Seccomp bool
}
