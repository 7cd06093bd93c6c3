// SPDX-License-Identifier: Apache-2.0

package service

// Catalog is an immutable picture of the API: every Service, the endpoints of
// every Service port, and this node. Slices in it are shared: do not write.
type Catalog struct {
	// Synced is false until the first complete list has arrived; such a
	// catalog is empty and means "unknown", not "no Services".
	Synced bool
	// Services is sorted by name.
	Services []*Service
	// Endpoints holds both families, sorted by address; duplicates across
	// slices are collapsed as kube-proxy collapses them.
	Endpoints map[PortName][]Endpoint
	Node      Node
}
