// SPDX-License-Identifier: Apache-2.0

// Package kubeproxy knows what kube-proxy writes in its iptables and nftables modes: how
// chains are named, what their rules and comments say, which rules send
// traffic to which endpoint and which refuse it. NewView reads one backend's
// rules of one IP family:
//
//	v := kubeproxy.NewView(rs)
//	for _, p := range v.Ports {
//		for j := range p.EndpointJumps() {
//			fmt.Println(p.Name, j.Target, j.Rule.Counter.Packets)
//		}
//	}
//
// The names are those of Kubernetes 1.24 to 1.37, pkg/proxy/iptables.
//
// NewNativeView has the same of the nftables mode's table (pkg/proxy/nftables, Kubernetes
// 1.30 to 1.37), in which maps send traffic on and refuse it, and nothing counts.
package kubeproxy
