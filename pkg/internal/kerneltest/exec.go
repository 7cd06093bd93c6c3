// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Exec runs a tool to its end and returns what it printed on standard output.
// A missing tool skips the test as NeedTool does; any other failure, or an
// exit status other than 0, fails it with what the tool said.
func Exec(tb testing.TB, stdin, name string, args ...string) string {
	tb.Helper()
	NeedTool(tb, name)
	out, err := TryExec(tb, stdin, name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// TryExec is Exec for tools that may fail: the error carries the tool's
// standard error.
func TryExec(tb testing.TB, stdin, name string, args ...string) (string, error) {
	tb.Helper()
	path, err := lookTool(name)
	if err != nil {
		return "", err
	}
	// Started on the calling thread, so with the capabilities that it has. The
	// end of the PID namespace ends what is left over.
	cmd := exec.Command(path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == -1 {
			err = fmt.Errorf("%w (killed)", err)
		}
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}
