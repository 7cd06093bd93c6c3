// SPDX-License-Identifier: Apache-2.0

// Package cli is svcscope's command line: one cobra command a file, built by
// functions. A command turns its flags into a config struct, calls the
// package that does the work and prints to the writers it was given. It holds
// no state and reads no rules of its own; the agent and the commands that ask
// differ only in who drives.
//
// Results go to standard output; notes and errors go to standard error, so
// that -o json stays clean. The exit status is 0, 1 for an operation that did
// not succeed and 2 for a command line that cannot be understood.
package cli
