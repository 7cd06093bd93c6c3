// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/svcscope/svcscope/pkg/kernel"
)

// usageError is a command line that parses and makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// remedyError is an error that the user can do something about.
type remedyError struct {
	err    error
	remedy string // a whole sentence without a full stop
}

func (e *remedyError) Error() string { return e.err.Error() }
func (e *remedyError) Unwrap() error { return e.err }

// withRemedy adds what to do about err, which is not nil.
func withRemedy(err error, remedy string) error {
	return &remedyError{err: err, remedy: remedy}
}

// printError writes err as `svcscope: operation object: cause`, a line for
// each of joined errors, and below it the remedy where one is known.
func printError(w io.Writer, err error) {
	for line := range strings.Lines(strings.TrimSpace(err.Error())) {
		fmt.Fprintf(w, "svcscope: %s\n", strings.TrimSpace(line))
	}
	if r := remedy(err); r != "" {
		fmt.Fprintf(w, "  %s\n", r)
	}
}

// remedy is what to do about err, or empty.
func remedy(err error) string {
	if r := (*remedyError)(nil); errors.As(err, &r) {
		return r.remedy
	}
	if c := (*kernel.CapabilityError)(nil); errors.As(err, &c) {
		return capabilityRemedy("svcscope", c.Cap)
	}
	return ""
}

const capNetAdmin = "CAP_NET_ADMIN"

// capabilityRemedy gives a program the capability that it lacks.
func capabilityRemedy(program, name string) string {
	return "run " + program + " as root (UID 0 with " + name + ") in the node's network namespace"
}

func printUsageHint(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "  see %s --help\n", cmd.CommandPath())
}
