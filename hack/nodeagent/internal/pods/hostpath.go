// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
)

// hostPath checks a path of the node against the type that the volume asks
// for, and makes it for the two types that say so.
func hostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	info, err := os.Stat(v.Path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("hostPath: %w", err)
	}
	switch kind {
	case corev1.HostPathUnset:
		if missing {
			// A runtime would make a folder here; that hides mistakes.
			return fmt.Errorf("hostPath %s does not exist", v.Path)
		}
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(v.Path, 0o755)
		}
	case corev1.HostPathFileOrCreate:
		if missing {
			return os.WriteFile(v.Path, nil, 0o644)
		}
	}
	want := map[corev1.HostPathType]func(fs.FileMode) bool{
		corev1.HostPathDirectory:         fs.FileMode.IsDir,
		corev1.HostPathDirectoryOrCreate: fs.FileMode.IsDir,
		corev1.HostPathFile:              fs.FileMode.IsRegular,
		corev1.HostPathFileOrCreate:      fs.FileMode.IsRegular,
		corev1.HostPathSocket:            func(m fs.FileMode) bool { return m&fs.ModeSocket != 0 },
		corev1.HostPathCharDev:           func(m fs.FileMode) bool { return m&fs.ModeCharDevice != 0 },
		corev1.HostPathBlockDev:          func(m fs.FileMode) bool { return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0 },
	}[kind]
	if want == nil {
		return fmt.Errorf("hostPath type %q is not known", kind)
	}
	if missing || !want(info.Mode()) {
		return fmt.Errorf("hostPath type check failed: %s is not of type %s", v.Path, kind)
	}
	return nil
}
