// SPDX-License-Identifier: Apache-2.0

// Package kernel holds the only code that opens sockets towards netfilter: one
// reader per interface (x_tables, nf_tables, conntrack). A reader sends
// requests, sees to it that the answer is consistent, and gives errnos a
// meaning (ErrInterrupted, ErrOverrun, ErrAbsent, ErrTimeout, CapabilityError);
// decoding is done by the packages below netfilter, and what rules mean by
// ruleset.
//
// Readers change nothing of the kernel's state. No request of theirs
// creates, deletes or zeroes, and the socket would refuse it; no sysctl is
// written; no lock is taken. Two things are made where they are asked for, and end
// with their sockets: the binding of a group of NFLOG (PacketLog), and a table of
// counters (Tap). A legacy table is asked for only if it exists
// already, because asking creates it. All of it works with CAP_NET_ADMIN as the
// only capability.
package kernel
