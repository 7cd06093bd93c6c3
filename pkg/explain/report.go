// SPDX-License-Identifier: Apache-2.0

package explain

import "time"

// Report is what is known of one Service on one node, as `svcscope explain -o json`
// prints it. Its JSON names are a contract (docs/api.md): fields may be added, but
// none is renamed or changes its meaning. What is not known is absent.
type Report struct {
	Node   string    `json:"node"`
	Time   time.Time `json:"time"` // when the kernel was read, UTC, to the millisecond
	Kernel string    `json:"kernel,omitempty"`
	Kube   Kube      `json:"kube"`
	// Unread is why rules are missing, by backend.
	Unread map[string]string `json:"unread,omitempty"`
	// ConntrackError is why the entries of connection tracking are missing.
	ConntrackError string `json:"conntrackError,omitempty"`
	// Watched is when the agent on this node, whose word Drift and Since of differences
	// are, had compared last; absent where no agent has told, or was not asked, as nothing
	// differs.
	Watched  *time.Time `json:"watched,omitempty"`
	Service  Service    `json:"service"`
	Families []Family   `json:"families"`
	Paths    []Path     `json:"paths"`
}

// Kube is what is known of the API.
type Kube struct {
	Enabled bool   `json:"enabled"`
	Synced  bool   `json:"synced"`
	Error   string `json:"error,omitempty"`
	// NodeMissing: the API has no Node of this name, so that it is not known which
	// endpoints are local.
	NodeMissing bool `json:"nodeMissing,omitempty"`
}

// Service is what the API says of the Service; without it the name alone.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	InAPI     *bool  `json:"inAPI,omitempty"`
	Type      string `json:"type,omitempty"`

	ClusterIPs      []string `json:"clusterIPs,omitempty"`
	ExternalIPs     []string `json:"externalIPs,omitempty"`
	LoadBalancerIPs []string `json:"loadBalancerIPs,omitempty"` // with ipMode VIP
	ProxyModeIPs    []string `json:"proxyModeIPs,omitempty"`    // with ipMode Proxy
	SourceRanges    []string `json:"loadBalancerSourceRanges,omitempty"`

	InternalTrafficPolicy string `json:"internalTrafficPolicy,omitempty"`
	// ExternalTrafficPolicy is absent where there is no address for it.
	ExternalTrafficPolicy string `json:"externalTrafficPolicy,omitempty"`
	// AffinitySeconds is absent without session affinity.
	AffinitySeconds     uint32 `json:"sessionAffinitySeconds,omitempty"`
	HealthCheckNodePort uint16 `json:"healthCheckNodePort,omitempty"`
	// Skipped is why kube-proxy does nothing for the Service.
	Skipped Unexplained `json:"skipped,omitempty"`
	// ProxyName is the proxy that serves it in kube-proxy's place.
	ProxyName string `json:"proxyName,omitempty"`
}

// Family is what concerns all Services in one IP family.
type Family struct {
	IPFamily  string `json:"ipFamily"`
	ProxyMode string `json:"proxyMode"` // iptables, nftables, ipvs, none, unknown
	// Differences are the node's; absent where nothing was judged.
	Differences []Difference `json:"differences,omitzero"`
}

// Difference is where the rules are not what they should be: docs/drift.md.
type Difference struct {
	Kind     string `json:"kind"`
	Frontend string `json:"frontend,omitempty"`
	Detail   string `json:"detail,omitempty"`
	// InFlight: a change of the API that kube-proxy has not written yet may explain it.
	InFlight bool `json:"inFlight"`
	// Drift tells whether it has lasted long enough to be drift, and Since since when it
	// has been seen, by the agent on this node: absent where that has not told.
	Drift *bool      `json:"drift,omitempty"`
	Since *time.Time `json:"since,omitempty"`
}

// Unexplained is why there is no path.
type Unexplained string

// The reasons of Unexplained.
const (
	NFTablesMode Unexplained = "nftables_mode" // rules of that mode are not understood yet
	IPVSMode     Unexplained = "ipvs_mode"     // virtual servers in place of rules
	NoRules      Unexplained = "no_rules"      // kube-proxy has no rules in this family
	RulesUnread  Unexplained = "rules_unread"  // they could not be read
	Headless     Unexplained = "headless"
	ExternalName Unexplained = "external_name"
	OtherProxy   Unexplained = "other_proxy"
)

// Path is one port of the Service in one IP family, by one backend's rules.
type Path struct {
	PortName string `json:"portName,omitempty"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
	IPFamily string `json:"ipFamily"`
	Backend  string `json:"backend,omitempty"` // nft, legacy
	// Unexplained is why the path is not known; what the API wants is told then, too.
	Unexplained Unexplained `json:"unexplained,omitempty"`
	// Command shows what is not explained, where there is such a command.
	Command string `json:"command,omitempty"`
	// Wanted is what kube-proxy should make of it here; nil where that is nothing, or
	// not known.
	Wanted *Wanted `json:"wanted,omitempty"`
	// Differences are where the rules of this one moment differ from that; absent where
	// they were not judged.
	Differences []Difference `json:"differences,omitzero"`
	// Arrivals are where packets come to KUBE-SERVICES: all Services' way.
	Arrivals []Arrival `json:"arrivals,omitempty"`
	// RefusalArrivals are where packets come to the chains of filter that have Refusals
	// of Entries.
	RefusalArrivals []Arrival `json:"refusalArrivals,omitempty"`
	Entries         []Entry   `json:"entries"`
	// Chains are the port's own: KUBE-FW, KUBE-EXT, KUBE-SVC, KUBE-SVL, as far as
	// they are there or should be.
	Chains    []Chain    `json:"chains,omitempty"`
	Endpoints []Endpoint `json:"endpoints"`
	// AffinitySeconds is for how long the rules keep clients at their endpoint; absent
	// where they do not.
	AffinitySeconds uint32 `json:"affinitySeconds,omitempty"`
	// HealthChecks are the rules that let a load balancer's health checks in.
	HealthChecks []Rule `json:"healthChecks,omitempty"`
	// Masquerading are the rules of KUBE-POSTROUTING that give marked connections,
	// of all Services, an address of the node.
	Masquerading []Rule `json:"masquerading,omitempty"`
	// Conntrack has the entries of connection tracking that came by one of Entries, by
	// where they lead; absent where they were not read.
	Conntrack []Flow `json:"conntrack,omitzero"`
}

// Wanted is what the API has kube-proxy do for a port here.
type Wanted struct {
	// Endpoints are those of KUBE-SVC, LocalEndpoints those of KUBE-SVL.
	Endpoints           []string `json:"endpoints,omitempty"`
	LocalEndpoints      []string `json:"localEndpoints,omitempty"`
	AffinitySeconds     uint32   `json:"affinitySeconds,omitempty"`
	SourceRanges        []string `json:"sourceRanges,omitempty"`
	HealthCheckNodePort uint16   `json:"healthCheckNodePort,omitempty"`
}

// Arrival is a built-in chain, and the rules that send packets from it to kube-proxy's
// chains: of nat to KUBE-SERVICES. Without any, no packet comes that way.
type Arrival struct {
	Chain string `json:"chain"` // PREROUTING, OUTPUT; of filter INPUT, FORWARD, OUTPUT
	Rules []Rule `json:"rules"`
}

// Entry is an address, or the node port, by which the port is reached.
type Entry struct {
	Frontend string `json:"frontend,omitempty"` // cluster, external, loadbalancer, nodeport
	Address  string `json:"address,omitempty"`  // absent for the node port
	Port     uint16 `json:"port"`
	InAPI    *bool  `json:"inAPI,omitempty"`
	// WantedChain is where nat should send packets, WantedRefusal why filter should
	// refuse them.
	WantedChain   string `json:"wantedChain,omitempty"`
	WantedRefusal string `json:"wantedRefusal,omitempty"`
	// Dispatch are the rules of KUBE-SERVICES and KUBE-NODEPORTS that send packets on,
	// in the order in which a packet meets them.
	Dispatch []Rule `json:"dispatch"`
	Refusals []Rule `json:"refusals,omitempty"`
	// Masquerades are whose connections get an address of the node. An endpoint's to
	// itself do always.
	Masquerades []Masquerade `json:"masquerades,omitempty"`
	// Tracked counts the entries of connection tracking that came by this way.
	Tracked *uint64 `json:"tracked,omitempty"`
	Command string  `json:"command,omitempty"` // lists these entries
}

// Masquerade is a rule's reason to masquerade, and whom it concerns.
type Masquerade struct {
	Reason  string `json:"reason"`
	Clients string `json:"clients"`
}

// Rule is one rule.
type Rule struct {
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Number int    `json:"number"` // its place in the chain, from 1
	Of     int    `json:"of"`     // how many rules the chain has
	Role   Role   `json:"role"`
	Target string `json:"target,omitempty"` // a chain or an action
	// Reason is why the rule masquerades or refuses.
	Reason string `json:"reason,omitempty"`
	// Clients are those that the rule is for, in words; absent where it is for all.
	Clients string `json:"clients,omitempty"`
	// Destination are the addresses of the node that a node port's rule is for; absent
	// where it is for all.
	Destination string `json:"destination,omitempty"`
	// Endpoint is where connections are sent.
	Endpoint string `json:"endpoint,omitempty"`
	Comment  string `json:"comment,omitempty"`
	Text     string `json:"text"` // as iptables-save prints it after -A CHAIN
	// Packets is the rule's counter: in nat new connections. SinceSync: it is 0 again
	// after each sync of kube-proxy; others count since the rule was written.
	Packets   uint64 `json:"packets"`
	SinceSync bool   `json:"sinceSync"`
	Command   string `json:"command"` // prints the rule with its counter
}

// Role is what a rule is for.
type Role string

// The roles.
const (
	RoleArrival     Role = "arrival"      // from a built-in chain to kube-proxy's
	RoleNodePorts   Role = "node_ports"   // from KUBE-SERVICES to KUBE-NODEPORTS
	RoleDispatch    Role = "dispatch"     // from there to the port's chains
	RoleMasquerade  Role = "masquerade"   // marks, or gives an address of the node
	RoleSourceRange Role = "source_range" // lets a range in
	RoleForward     Role = "forward"      // to another chain of the port
	RoleAffinity    Role = "affinity"     // clients that come back
	RoleShare       Role = "share"        // a share of the others
	RoleDNAT        Role = "dnat"
	RoleRefusal     Role = "refusal"
	RoleHealthCheck Role = "health_check"
	RoleOther       Role = "other"
)

// Reasons to masquerade.
const (
	MasqueradeAll   = "masquerade_all"          // --masquerade-all
	OutsideCluster  = "outside_cluster"         // the client is no pod's, by --cluster-cidr or the like
	ExternalCluster = "external_policy_cluster" // another node may have the endpoint
	NodeItself      = "node_itself"             // the node's own, to an address of external traffic policy Local
	Hairpin         = "hairpin"                 // an endpoint's to itself
	AnyMarked       = "marked"                  // what one of the others has marked
	UnknownReason   = "unknown"
)

// Chain is one of the port's own chains.
type Chain struct {
	Name  string     `json:"name"`
	Kind  ChainKind  `json:"kind"`
	State ChainState `json:"state"`
	Rules []Rule     `json:"rules"`
	// Connections is the sum of the jumps to endpoints, and Shares whose they are; of
	// KUBE-SVC and KUBE-SVL.
	Connections uint64  `json:"connections,omitempty"`
	Shares      []Share `json:"shares,omitempty"`
}

// ChainKind is what a chain holds.
type ChainKind string

// The kinds.
const (
	ChainCluster  ChainKind = "cluster"  // KUBE-SVC: endpoints anywhere
	ChainLocal    ChainKind = "local"    // KUBE-SVL: endpoints of this node
	ChainExternal ChainKind = "external" // KUBE-EXT: for node ports, external and load-balancer addresses
	ChainFirewall ChainKind = "firewall" // KUBE-FW: source ranges
)

// ChainState tells whether a chain is there.
type ChainState string

// The states.
const (
	ChainPresent ChainState = "present"
	ChainMissing ChainState = "missing" // it should be there
	ChainEmpty   ChainState = "empty"   // kube-proxy never leaves one so
)

// Share is what one endpoint gets of a chain's connections; shares are 0 to 1.
type Share struct {
	Endpoint string `json:"endpoint,omitempty"` // absent where nothing tells the address
	Chain    string `json:"chain"`              // KUBE-SEP-…
	Packets  uint64 `json:"packets"`            // of the jumps to it
	// Real is of what the chain has counted; absent while that is nothing.
	Real *float64 `json:"real,omitempty"`
	// Wanted is what the API wants, and ByRules what the rules give a client that has
	// no endpoint yet; absent where it is not known.
	Wanted  *float64 `json:"wanted,omitempty"`
	ByRules *float64 `json:"byRules,omitempty"`
}

// Endpoint is one that the rules, the API or connection tracking have.
type Endpoint struct {
	Address string `json:"address"`
	// InRules is absent where the rules are not known, and InAPI where the API is not.
	InRules *bool `json:"inRules,omitempty"`
	InAPI   *bool `json:"inAPI,omitempty"`
	// Local tells whether it is on this node; Node and Zone are the API's.
	Local       *bool  `json:"local,omitempty"`
	Node        string `json:"node,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Ready       *bool  `json:"ready,omitempty"`
	Serving     *bool  `json:"serving,omitempty"`
	Terminating *bool  `json:"terminating,omitempty"`
	// Unused is why the API's endpoint is none for this node: not_ready, hints,
	// not_local.
	Unused string `json:"unused,omitempty"`
	// Chain is its KUBE-SEP, and Rules the rules of that.
	Chain string `json:"chain,omitempty"`
	Rules []Rule `json:"rules,omitempty"`
	// Tracked counts the entries of connection tracking that lead to it by the
	// Service's addresses.
	Tracked *Tracked `json:"tracked,omitempty"`
	// Commands show which way packets go to it: by a link of this node, or by another node.
	Commands []string `json:"commands,omitempty"`
}

// Tracked counts entries of connection tracking.
type Tracked struct {
	Entries   uint64 `json:"entries"`
	Unreplied uint64 `json:"unreplied"` // of these, that nothing has answered
	Closing   uint64 `json:"closing"`   // of these, that are ending
	// OlderAtLeast is how many began, at least, before the endpoint's rule was written:
	// what is more than the rule has counted. Absent where it is not known.
	OlderAtLeast *uint64 `json:"olderAtLeast,omitempty"`
}

// Flow counts the entries of one way to one endpoint.
type Flow struct {
	To        string `json:"to"`
	Endpoint  string `json:"endpoint"`
	Entries   uint64 `json:"entries"`
	Unreplied uint64 `json:"unreplied"`
	Closing   uint64 `json:"closing"`
	Command   string `json:"command"`
}
