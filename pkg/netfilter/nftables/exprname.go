// SPDX-License-Identifier: Apache-2.0

package nftables

// ExprName implements Expr.
func (Meta) ExprName() string { return "meta" }

// ExprName implements Expr.
func (Cmp) ExprName() string { return "cmp" }

// ExprName implements Expr.
func (Payload) ExprName() string { return "payload" }

// ExprName implements Expr.
func (Bitwise) ExprName() string { return "bitwise" }

// ExprName implements Expr.
func (Immediate) ExprName() string { return "immediate" }

// ExprName implements Expr.
func (Counter) ExprName() string { return "counter" }

// ExprName implements Expr.
func (CompatMatch) ExprName() string { return "match" }

// ExprName implements Expr.
func (CompatTarget) ExprName() string { return "target" }

// ExprName implements Expr.
func (Log) ExprName() string { return "log" }

// ExprName implements Expr.
func (Limit) ExprName() string { return "limit" }

// ExprName implements Expr.
func (Range) ExprName() string { return "range" }

// ExprName implements Expr.
func (Lookup) ExprName() string { return "lookup" }

// ExprName implements Expr.
func (DynSet) ExprName() string { return "dynset" }

// ExprName implements Expr.
func (NAT) ExprName() string { return "nat" }

// ExprName implements Expr.
func (Masq) ExprName() string { return "masq" }

// ExprName implements Expr.
func (Redir) ExprName() string { return "redir" }

// ExprName implements Expr.
func (Reject) ExprName() string { return "reject" }

// ExprName implements Expr.
func (CT) ExprName() string { return "ct" }

// ExprName implements Expr.
func (Numgen) ExprName() string { return "numgen" }

// ExprName implements Expr.
func (FIB) ExprName() string { return "fib" }

// ExprName implements Expr.
func (Notrack) ExprName() string { return "notrack" }

// ExprName implements Expr.
func (Byteorder) ExprName() string { return "byteorder" }

// ExprName implements Expr.
func (ObjRef) ExprName() string { return "objref" }

// ExprName implements Expr.
func (UserQueue) ExprName() string { return "queue" }

// ExprName implements Expr.
func (o Opaque) ExprName() string { return o.Name }
