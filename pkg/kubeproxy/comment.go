// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"strings"

	"github.com/svcscope/svcscope/pkg/service"
)

// Form is which of kube-proxy's sentences a rule's comment is.
type Form uint8

// The forms of comment that name a Service port, as pkg/proxy/iptables/proxier.go
// of Kubernetes 1.37 writes them.
const (
	NoForm              Form = iota // not one of them
	FormBare                        // "<port>": node port dispatch, both rules of an endpoint
	FormClusterIP                   // "<port> cluster IP"
	FormExternalIP                  // "<port> external IP"
	FormLoadBalancerIP              // "<port> loadbalancer IP"
	FormNoEndpoints                 // "<port> has no endpoints"
	FormNoLocal                     // "<port> has no local endpoints"
	FormHealthCheck                 // "<port> health check node port"
	FormNotAccepted                 // "<port> traffic not accepted by KUBE-FW-…"
	FormEndpoint                    // "<port> -> 10.0.0.1:80"
	FormMasquerade                  // "masquerade traffic for <port> external destinations"
	FormPodTraffic                  // "pod traffic for <port> external destinations"
	FormMasqueradeLocal             // "masquerade LOCAL traffic for <port> external destinations"
	FormRouteLocal                  // "route LOCAL traffic for <port> external destinations"
	FormOtherTraffic                // "other traffic to <port> will be dropped by KUBE-PROXY-FIREWALL"
)

// ParseComment reads a comment of kube-proxy. The name has no protocol: that
// is in the rule's -p, or found out by the hash of the rule's chain. rest is
// what follows the form's words: the endpoint's address and port of
// FormEndpoint, the chain of FormNotAccepted. The name shares the comment's
// memory.
func ParseComment(comment string) (p service.PortName, form Form, rest string) {
	before, after, spaced := strings.Cut(comment, " ")
	if !spaced {
		if p, ok := parsePortName(comment); ok {
			return p, FormBare, ""
		}
		return service.PortName{}, NoForm, ""
	}
	if p, ok := parsePortName(before); ok {
		form, rest = formAfter(after)
		if form == NoForm {
			p = service.PortName{}
		}
		return p, form, rest
	}
	return parseSentence(comment)
}

// formAfter tells the forms that start with the port's name.
func formAfter(words string) (Form, string) {
	if addr, ok := strings.CutPrefix(words, "-> "); ok {
		return FormEndpoint, addr
	}
	if chain, ok := strings.CutPrefix(words, "traffic not accepted by "); ok {
		return FormNotAccepted, chain
	}
	switch words {
	case "cluster IP":
		return FormClusterIP, ""
	case "external IP":
		return FormExternalIP, ""
	case "loadbalancer IP":
		return FormLoadBalancerIP, ""
	case "has no endpoints":
		return FormNoEndpoints, ""
	case "has no local endpoints":
		return FormNoLocal, ""
	case "health check node port":
		return FormHealthCheck, ""
	}
	return NoForm, ""
}

// parseSentence tells the forms with the port's name in the middle.
func parseSentence(comment string) (service.PortName, Form, string) {
	sentences := [...]struct {
		before, after string
		form          Form
	}{
		{"masquerade traffic for ", " external destinations", FormMasquerade},
		{"pod traffic for ", " external destinations", FormPodTraffic},
		{"masquerade LOCAL traffic for ", " external destinations", FormMasqueradeLocal},
		{"route LOCAL traffic for ", " external destinations", FormRouteLocal},
		{"other traffic to ", " will be dropped by KUBE-PROXY-FIREWALL", FormOtherTraffic},
	}
	for _, s := range sentences {
		rest, ok := strings.CutPrefix(comment, s.before)
		if !ok {
			continue
		}
		if name, ok := strings.CutSuffix(rest, s.after); ok {
			if p, ok := parsePortName(name); ok {
				return p, s.form, ""
			}
		}
	}
	return service.PortName{}, NoForm, ""
}

// parsePortName reads namespace/name[:port]. Names of Kubernetes are lower
// case letters, digits and "-"; the check keeps other tools' comments out.
func parsePortName(s string) (service.PortName, bool) {
	ns, rest, ok := strings.Cut(s, "/")
	name, port, hasPort := strings.Cut(rest, ":")
	if !ok || !isLabel(ns) || !isLabel(name) || hasPort && !isLabel(port) {
		return service.PortName{}, false
	}
	return service.PortName{Name: service.Name{Namespace: ns, Name: name}, Port: port}, true
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}
