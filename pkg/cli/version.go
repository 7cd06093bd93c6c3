// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/prometheus/common/version"
	"github.com/spf13/cobra"
)

// versionReport is what `svcscope version -o json` prints.
type versionReport struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"` // GOOS/GOARCH
}

func newVersion(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "The version of this binary",
		Args:  cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		return writeVersion(e, output.value)
	}
	return cmd
}

// writeVersion prints what the linker stamped: builds set Version and Revision
// in prometheus/common/version by -ldflags -X; `go build` alone leaves the
// version empty, and the revision is what Go itself recorded.
func writeVersion(e *env, format string) error {
	v := versionReport{
		Version:   version.Version,
		Revision:  version.GetRevision(),
		GoVersion: version.GoVersion,
		Platform:  version.GoOS + "/" + version.GoArch,
	}
	if v.Version == "" {
		v.Version = "unknown"
	}
	if format == formatJSON || format == formatYAML {
		return writeObject(e.stdout, format, v)
	}
	return writeTable(e.stdout, [][]string{
		{"VERSION", "REVISION", "GO", "PLATFORM"},
		{v.Version, v.Revision, v.GoVersion, v.Platform},
	})
}
