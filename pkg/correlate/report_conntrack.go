// SPDX-License-Identifier: Apache-2.0

package correlate

import "time"

// ConntrackReport is what a Snapshot knows of connection tracking, in the shape
// that the HTTP path /api/v1/conntrack returns and that `svcscope conntrack -o
// json` prints. Its JSON names are a contract (docs/api.md).
type ConntrackReport struct {
	ReportHead
	// Table is nil where the sizes could not be read.
	Table *TableReport `json:"table,omitempty"`
	// Losses is nil where the statistics could not be read, or only once.
	Losses *LossesReport `json:"losses,omitempty"`
	// Statistics are the kernel's since the namespace was made, by the name of
	// the metric without prefix and suffix; only what this kernel has.
	Statistics map[string]uint64 `json:"statistics,omitempty"`
	// Entries is nil where they were not read.
	Entries *EntriesReport `json:"entries,omitempty"`
}

// TableReport is the size of the table.
type TableReport struct {
	Entries uint64 `json:"entries"`
	Peak    uint64 `json:"peak"` // of the last minute
	Limit   uint64 `json:"limit"`
	Buckets uint64 `json:"buckets"`
	// TimeToFullSeconds is nil while the table is not filling.
	TimeToFullSeconds *float64 `json:"timeToFullSeconds,omitempty"`
}

// LossesReport is what connection tracking lost.
type LossesReport struct {
	Since   time.Time         `json:"since"`
	Packets map[string]uint64 `json:"packets"` // by LossCause
}

// EntriesReport is the last reading of all entries.
type EntriesReport struct {
	Time            time.Time              `json:"time"`
	DurationSeconds float64                `json:"durationSeconds"`
	IntervalSeconds float64                `json:"intervalSeconds,omitempty"`
	Read            uint64                 `json:"read"`
	Owners          map[string]uint64      `json:"owners"` // by Owner
	States          []StateReport          `json:"states"`
	Services        []ServiceEntriesReport `json:"services"` // most entries first
	// SourcePorts has the destinations toward which most are taken, the busiest
	// first.
	SourcePorts []SourcePortsReport `json:"sourcePorts"`
}

// StateReport counts the entries of one protocol in one state.
type StateReport struct {
	Protocol string `json:"protocol"`
	State    string `json:"state"`
	Entries  uint64 `json:"entries"`
}

// ServiceEntriesReport counts the entries of a Service port in one family.
type ServiceEntriesReport struct {
	Namespace        string `json:"namespace"`
	Name             string `json:"name"`
	PortName         string `json:"portName,omitempty"`
	Protocol         string `json:"protocol"`
	IPFamily         string `json:"ipFamily"`
	Entries          uint64 `json:"entries"` // the sum of the next three
	Replied          uint64 `json:"replied"`
	Unreplied        uint64 `json:"unreplied"`
	Closing          uint64 `json:"closing"`
	Stale            uint64 `json:"stale"`
	UnansweredLocal  uint64 `json:"unansweredLocal"`
	UnansweredRemote uint64 `json:"unansweredRemote"`
}

// SourcePortsReport is how many source ports are taken toward one destination.
type SourcePortsReport struct {
	Protocol    string  `json:"protocol"`
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Used        uint64  `json:"used"`
	Pressure    float64 `json:"pressure"` // 0 to 1
}

// NewConntrackReport formats s.
func NewConntrackReport(s *Snapshot) ConntrackReport {
	r := ConntrackReport{ReportHead: newReportHead(s)}
	if t := s.Conntrack; t != nil {
		r.Table = &TableReport{Entries: t.Entries, Peak: t.Peak, Limit: t.Limit, Buckets: t.Buckets}
		if t.Filling {
			r.Table.TimeToFullSeconds = new(t.TimeToFull.Seconds())
		}
		r.Losses = newLossesReport(t)
		r.Statistics = t.Stats.byName()
	}
	if s.Flows != nil {
		r.Entries = newEntriesReport(s.Flows)
	}
	return r
}

func newLossesReport(t *Conntrack) *LossesReport {
	if t.LossesSince.IsZero() {
		return nil
	}
	l := &LossesReport{Since: t.LossesSince.UTC().Truncate(time.Millisecond), Packets: make(map[string]uint64)}
	for cause, n := range t.Losses {
		l.Packets[LossCause(cause).String()] = n
	}
	return l
}

// byName returns the statistics that the kernel has.
func (s *ConntrackStats) byName() map[string]uint64 {
	all := make(map[string]uint64)
	for name, v := range map[string]*uint64{
		"found": s.Found, "invalid": s.Invalid, "insert_failed": s.InsertFailed, "drop": s.Drop, "early_drop": s.EarlyDrop,
		"error": s.Error, "search_restart": s.SearchRestart, "clash_resolve": s.ClashResolve, "chain_toolong": s.ChainTooLong,
	} {
		if v != nil {
			all[name] = *v
		}
	}
	return all
}

func newEntriesReport(f *Flows) *EntriesReport {
	r := &EntriesReport{
		Time: f.Time.UTC().Truncate(time.Millisecond), DurationSeconds: f.Duration.Seconds(), IntervalSeconds: f.Interval.Seconds(),
		Read: f.Entries, Owners: make(map[string]uint64),
		States: make([]StateReport, 0, len(f.States)), Services: make([]ServiceEntriesReport, 0, len(f.Services)),
		SourcePorts: make([]SourcePortsReport, 0, len(f.Ports)),
	}
	for o, n := range f.Owners {
		r.Owners[Owner(o).String()] = n
	}
	for _, s := range f.States {
		r.States = append(r.States, StateReport(s))
	}
	for _, s := range f.busiest() {
		r.Services = append(r.Services, ServiceEntriesReport{
			Namespace: s.Port.Namespace, Name: s.Port.Name.Name, PortName: s.Port.Port,
			Protocol: string(s.Port.Protocol), IPFamily: s.Family.String(),
			Entries: s.Entries(), Replied: s.Replied, Unreplied: s.Unreplied, Closing: s.Closing, Stale: s.Stale,
			UnansweredLocal: s.UnansweredLocal, UnansweredRemote: s.UnansweredRemote,
		})
	}
	for i := range f.Ports {
		p := &f.Ports[i]
		r.SourcePorts = append(r.SourcePorts, SourcePortsReport{
			Protocol: string(p.Protocol), Source: p.Source.String(), Destination: p.Destination.String(),
			Used: p.Used, Pressure: p.Pressure(),
		})
	}
	return r
}
