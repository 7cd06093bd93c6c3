// SPDX-License-Identifier: Apache-2.0

// Package nflog decodes what nfnetlink_log sends of packets that a rule logs to a
// group, and the headers of those packets:
//
//	var p nflog.Packet
//	if err := p.Decode(message.Payload); err == nil {
//		h, _ := nflog.ParseHeaders(p.Payload)
//		fmt.Println(p.Hook, string(p.Prefix), h.Src, h.Dst)
//	}
//
// It opens nothing and allocates nothing.
package nflog
