// SPDX-License-Identifier: Apache-2.0

// Package kube follows Services, EndpointSlices and this node's Node in the
// API and hands them on as service.Catalog values; where asked for also this node's
// pods and the names of NetworkPolicies, and it writes Events of pods.
//
//	cfg, err := kube.LoadConfig("")           // in a pod
//	w, err := kube.New(kube.Config{REST: cfg, NodeName: "node-1"})
//	go w.Run(ctx)                             // never gives up before ctx ends
//	w.Catalog().Service(name)                 // newest picture, never waits
//
// API objects are converted as they arrive and not kept. The package uses a
// bare REST client and a scheme of a few kinds, not the generated clients,
// whose registration of every API group would make up most of the binary.
package kube
