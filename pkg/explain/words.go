// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// addressText lists a Service's addresses.
func addressText(s *Service) string {
	var out []string
	add := func(what string, addrs []string) {
		if len(addrs) > 0 {
			out = append(out, what+strings.Join(addrs, " "))
		}
	}
	add("cluster ", s.ClusterIPs)
	add("external ", s.ExternalIPs)
	add("load balancer ", s.LoadBalancerIPs)
	add("load balancer's, not the node's ", s.ProxyModeIPs)
	return strings.Join(out, ", ")
}

func policyText(s *Service) string {
	var out []string
	if s.InternalTrafficPolicy != "" {
		out = append(out, "internalTrafficPolicy "+s.InternalTrafficPolicy)
	}
	if s.ExternalTrafficPolicy != "" {
		out = append(out, "externalTrafficPolicy "+s.ExternalTrafficPolicy)
	}
	return strings.Join(out, ", ")
}

// modeText is how kube-proxy works; families of one mode are told together.
func modeText(families []Family) string {
	if len(families) == 0 {
		return ""
	}
	first := families[0].ProxyMode
	if !slices.ContainsFunc(families, func(f Family) bool { return f.ProxyMode != first }) {
		return "kube-proxy's mode " + first
	}
	var out []string
	for _, f := range families {
		out = append(out, f.IPFamily+" "+f.ProxyMode)
	}
	return "kube-proxy's mode " + strings.Join(out, ", ")
}

// apiText says what is not known of the API.
func apiText(r *Report) string {
	switch {
	case r.Kube.NodeMissing:
		return "has no Node " + r.Node + ": which endpoints are local is not known"
	case r.Kube.Synced:
		return ""
	case r.Kube.Error != "":
		return "not known: " + r.Kube.Error
	case r.Kube.Enabled:
		return "not known"
	}
	return "not asked: names are those of the rules' comments"
}

// unjudgedText is why differences were not looked for.
func unjudgedText(r *Report) string {
	switch {
	case !r.Kube.Synced:
		return "not judged: the API is not known"
	case r.Kube.NodeMissing:
		return "not judged: the API has no Node " + r.Node
	}
	return "not judged"
}

func skippedText(s *Service) string {
	switch s.Skipped {
	case Headless:
		return "headless: kube-proxy writes nothing for it, clients get the endpoints' addresses from DNS"
	case ExternalName:
		return "ExternalName: kube-proxy writes nothing for it, clients get another name from DNS"
	case OtherProxy:
		return "the label service.kubernetes.io/service-proxy-name gives it to " + s.ProxyName + ": kube-proxy writes nothing for it"
	}
	return ""
}

func unexplainedText(at *Path, r *Report) string {
	switch at.Unexplained {
	case NFTablesMode:
		return "kube-proxy works in nftables mode here: not explained yet (" + at.Command + ")"
	case IPVSMode:
		return "kube-proxy works in IPVS mode here: not explained yet (" + at.Command + ")"
	case RulesUnread:
		return "the rules could not be read"
	}
	return "kube-proxy has no rules in this family in the network namespace of " + cmp.Or(r.Node, "this node")
}

func differenceText(d *Difference) string {
	text := d.Kind
	if d.Frontend != "" {
		text += " (" + d.Frontend + ")"
	}
	if d.Detail != "" {
		text += ": " + d.Detail
	}
	return text
}

// lastsText is since when a difference is there, as far as an agent tells.
func lastsText(d *Difference) string {
	switch {
	case d.Drift == nil:
		return ""
	case !*d.Drift:
		return " (no drift yet)"
	case d.Since == nil:
		return " (drift)"
	}
	return " (drift since " + timeText(*d.Since) + ")"
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// lastingText is what to know of differences.
func lastingText(r *Report) string {
	const remedy = " svcscope drift says what to do; docs/drift.md has the kinds."
	const moment = "Differences are of this one moment: what kube-proxy is about to write differs, too. "
	if r.Watched == nil {
		return moment + "No agent on this node tells since when." + remedy
	}
	return moment + "Drift is what lasts, as the agent on this node has seen it until " + timeText(*r.Watched) + "." + remedy
}

// entryText is the head of a way: what it is, and who is masqueraded by it.
func entryText(e *Entry) string {
	number := strconv.Itoa(int(e.Port))
	at := number
	if a, err := netip.ParseAddr(e.Address); err == nil {
		at = netip.AddrPortFrom(a, e.Port).String()
	}
	kind := map[string]string{
		"cluster": "ClusterIP ", "external": "external IP ", "loadbalancer": "load balancer ", "nodeport": "NodePort ",
	}[e.Frontend]
	facts := []string{cmp.Or(kind, "address ") + at}
	if e.InAPI != nil && !*e.InAPI {
		facts = append(facts, "not in the API")
	}
	if len(e.Dispatch) > 0 {
		facts = append(facts, masqueradesText(e.Masquerades))
	}
	if len(e.Dispatch) == 0 && e.WantedChain != "" {
		facts = append(facts, "should lead to "+e.WantedChain)
	}
	if len(e.Refusals) == 0 && e.WantedRefusal != "" {
		facts = append(facts, "should be refused: "+refusalText(e.WantedRefusal))
	}
	if e.Tracked != nil {
		facts = append(facts, strconv.FormatUint(*e.Tracked, 10)+" tracked")
	}
	return strings.Join(facts, "; ")
}

func masqueradesText(all []Masquerade) string {
	if len(all) == 0 {
		return "not masqueraded"
	}
	var out []string
	for _, m := range all {
		out = append(out, reasonText(m.Reason, m.Clients))
	}
	return "masquerades " + strings.Join(out, " and ")
}

// reasonText is whom a rule has masqueraded, and why.
func reasonText(reason, clients string) string {
	switch reason {
	case MasqueradeAll:
		return "all clients (--masquerade-all)"
	case ExternalCluster:
		return "all clients (externalTrafficPolicy Cluster)"
	case NodeItself:
		return "the node's own"
	case AnyMarked:
		return "what is marked, of all Services"
	case Hairpin:
		return "the endpoint's own"
	}
	return "clients " + cmp.Or(clients, "that fit the rule")
}

func refusalText(reason string) string {
	switch reason {
	case "no_endpoints":
		return "no endpoints"
	case "no_local_endpoints":
		return "no endpoints on this node"
	case "source_range":
		return "what no source range lets in"
	}
	return reason
}

// where is the chain that a rule is in, with the table where that is not nat.
func (r *Rule) where() string {
	if r.Table != nat {
		return r.Table + " " + r.Chain
	}
	return r.Chain
}

// place is where in its chain a rule is, and where it leads.
func (r *Rule) place() string {
	text := "rule " + strconv.Itoa(r.Number) + " of " + strconv.Itoa(r.Of)
	if r.Target != "" {
		text += " → " + r.Target
	}
	return text
}

// note is what a rule does that its target does not say.
func (r *Rule) note() string {
	switch r.Role {
	case RoleMasquerade:
		return reasonText(r.Reason, r.Clients)
	case RoleRefusal:
		return refusalText(r.Reason)
	case RoleShare:
		return r.Endpoint
	case RoleAffinity:
		return strings.TrimPrefix(r.Endpoint+", clients that come back", ", ")
	case RoleSourceRange, RoleForward, RoleArrival:
		return r.Clients
	case RoleHealthCheck:
		return ""
	case RoleNodePorts, RoleDispatch:
		if r.Destination != "" {
			return "to " + r.Destination
		}
	}
	if r.Role == RoleNodePorts {
		return ""
	}
	if r.Comment == "" {
		return r.Text
	}
	return `"` + r.Comment + `"`
}
