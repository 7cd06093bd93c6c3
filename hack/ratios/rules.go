// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"

	"github.com/svcscope/svcscope/pkg/kubeproxy"
	"github.com/svcscope/svcscope/pkg/service"
)

// rules is iptables-restore input for n Services of three endpoints each, as
// kube-proxy writes it above 1,000 endpoints (no comments in the Services'
// chains), with the real hashed names: decimal ones make iptables-nft-save
// several times slower.
func rules(n int) []byte {
	var heads, body bytes.Buffer
	for _, c := range []string{"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"} {
		fmt.Fprintf(&heads, ":%s - [0:0]\n", c)
	}
	body.WriteString("-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n" +
		"-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n")
	shares := [...]string{"-m statistic --mode random --probability 0.3333333333 ", "-m statistic --mode random --probability 0.5000000000 ", ""}
	for i := range n {
		p := service.PortName{Name: service.Name{Namespace: "bench", Name: fmt.Sprintf("svc-%d", i)}, Port: "http", Protocol: service.TCP}
		vip := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		svc := kubeproxy.ServiceChain(p)
		fmt.Fprintf(&heads, ":%s - [0:0]\n", svc)
		fmt.Fprintf(&body, "-A KUBE-SERVICES -d %s/32 -p tcp -m comment --comment \"%s cluster IP\" -m tcp --dport 80 -j %s\n", vip, p, svc)
		fmt.Fprintf(&body, "-A %s ! -s 10.244.0.0/16 -d %s/32 -p tcp -m comment --comment \"%s cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n", svc, vip, p)
		for e := range shares {
			ep := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244 + byte(e), byte(i >> 8), byte(i)}), 8080)
			sep := kubeproxy.EndpointChain(p, ep)
			fmt.Fprintf(&heads, ":%s - [0:0]\n", sep)
			fmt.Fprintf(&body, "-A %s %s-j %s\n", svc, shares[e], sep)
			fmt.Fprintf(&body, "-A %s -s %s/32 -j KUBE-MARK-MASQ\n", sep, ep.Addr())
			fmt.Fprintf(&body, "-A %s -p tcp -m tcp -j DNAT --to-destination %s\n", sep, ep)
		}
	}
	return fmt.Appendf(nil, "*nat\n%s%sCOMMIT\n", heads.Bytes(), body.Bytes())
}
