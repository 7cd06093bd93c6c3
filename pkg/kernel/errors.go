// SPDX-License-Identifier: Apache-2.0

package kernel

import "errors"

// Reasons that a caller decides by; match them with errors.Is.
var (
	// ErrInterrupted says that what was read changed while it was read, and
	// kept changing through all retries: there is no consistent value. It
	// covers NLM_F_DUMP_INTR, a moved nf_tables generation and the EAGAIN of
	// x_tables. Trying again later is right.
	ErrInterrupted = errors.New("changed while it was read")
	// ErrOverrun says that the kernel dropped messages (ENOBUFS) because they
	// were not read fast enough: events are lost, a dump is needed.
	ErrOverrun = errors.New("messages lost: receive buffer overrun")
	// ErrAbsent says that this kernel or network namespace does not have what
	// was asked for: the subsystem is not built in or loaded, or the table is
	// not there. It is an answer, not a failure.
	ErrAbsent = errors.New("not present in this kernel or network namespace")
	// ErrTimeout says that a netlink socket had not brought the whole answer
	// after 30 seconds. The next call asks over a new one.
	ErrTimeout = errors.New("no answer from the kernel")
)

// errRefused says that this package itself would not send something, because
// it is not one of the requests that change nothing.
var errRefused = errors.New("refused: not one of the requests that only read")

// CapabilityError says that the kernel refused an operation with EPERM or
// EACCES: the process lacks a capability in the user namespace that owns the
// network namespace.
type CapabilityError struct {
	Op  string // what was tried, with its object: "read table nat (IPv4)"
	Cap string // the capability that the kernel's check names: "CAP_NET_ADMIN"
	Err error  // the errno
}

// Error names the operation, the capability and the errno.
func (e *CapabilityError) Error() string {
	s := e.Op + ": needs " + e.Cap
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes the errno reachable by errors.Is.
func (e *CapabilityError) Unwrap() error { return e.Err }
