// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// alertCase says what makes an alert fire here, or why nothing does: then
// promtool's tests of the rules are all there is.
type alertCase struct {
	fault string
	why   string
}

func alertCases() map[string]alertCase {
	const nodes = "compares nodes: the lab has one"
	return map[string]alertCase{
		"SvcscopeConntrackHighUtilization": {fault: "conntrack_full"},
		"SvcscopeConntrackCritical":        {fault: "conntrack_full"},
		"SvcscopeConntrackDropping":        {fault: "conntrack_full"},
		"SvcscopeConntrackPredictedFull":   {fault: "conntrack_growing"},
		"SvcscopeConntrackFillingFast":     {fault: "conntrack_growing"},
		"SvcscopeSourcePortsBusy":          {fault: "entries_astray"},
		"SvcscopeStaleUDP":                 {fault: "entries_astray"},
		"SvcscopeServiceUnanswered":        {fault: "entries_astray"},
		"SvcscopeConntrackInsertFailing":   {why: "needs packets of one flow that race each other all the time"},
		"SvcscopeConntrackHashOverloaded":  {why: "limit and buckets are the machine's: a full table has an entry a bucket"},
		"SvcscopeConntrackBucketsFew":      {why: "limit and buckets are the machine's"},
		"SvcscopeConntrackLimitDiffers":    {why: nodes},
		"SvcscopeRulesHigh":                {fault: "rules_high"},
		"SvcscopeRulesGrowthForecast":      {fault: "rules_growth"},
		"SvcscopeRulesDiffer":              {why: nodes},
		"SvcscopeTwoBackends":              {fault: "two_backends"},
		"SvcscopeNoKubeProxy":              {why: nodes},
		"SvcscopeRulesetChangesStorm":      {fault: "ruleset_storm"},
		"SvcscopeXtablesLockBusy":          {fault: "lock_busy"},
		"SvcscopeServiceRefusing":          {fault: "no_endpoints"},
		"SvcscopeServiceRefusingLocal":     {fault: "no_local_endpoints"},
		"SvcscopeNodeRulesMissing":         {fault: "jumps_missing"},
		"SvcscopeServicesShadowed":         {fault: "rules_shadowed"},
		"SvcscopeTwoRulesets":              {fault: "two_rulesets"},
		"SvcscopeKubeProxyNotSyncing":      {fault: "proxy_stands"},
		"SvcscopeServiceDrift":             {fault: "rules_edited"},
		"SvcscopeSourceRangesMissing":      {fault: "ranges_lost"},
		"SvcscopeProgrammingSlow":          {fault: "programming_slow"},
		"SvcscopeDriftNotJudged":           {why: "needs a kube-proxy that does not come to the end of its first sync"},
		"SvcscopeInvalidDrops":             {fault: "invalid_packets"},
		"SvcscopeNFLOGLost":                {fault: "nflog_lost"},
		"SvcscopeNFLOGGroupNotRead":        {fault: "nflog_held"},
		"SvcscopeDown":                     {fault: "agent_down"},
		"SvcscopeAbsent":                   {fault: "agent_down"},
		"SvcscopeCollectorFailing":         {why: "a kernel that once answered the agent goes on to"},
		"SvcscopeSnapshotStale":            {fault: "snapshot_stale"},
		"SvcscopeKubeNotSynced":            {fault: "api_down"},
		"SvcscopeCountsIncomplete":         {why: "needs rewrites that the agent does not hear of: here it listens"},
		"SvcscopeSeriesLimited":            {fault: "series_cap"},
		"SvcscopeUndecoded":                {fault: "undecoded"},
	}
}

// phases are faults that are there together. A full table comes first: when the load has
// gone on for two minutes, as many of its entries end as begin, and make room. When kube-proxy goes
// on that stood, it writes late what waited meanwhile. Those with
// an agent of their own come last, one by one.
func phases() [][]string {
	return [][]string{
		{"rules_high", "conntrack_full"},
		{"no_endpoints", "no_local_endpoints", "rules_growth", "two_backends", "entries_astray", "proxy_stands"},
		{"programming_slow", "rules_edited", "ranges_lost"},
		{"rules_shadowed", "two_rulesets"},
		{"jumps_missing"},
		{"ruleset_storm", "undecoded", "conntrack_growing", "lock_busy", "invalid_packets", "nflog_lost"},
		{"series_cap"},
		{"nflog_held"},
		{"api_down"},
		{"snapshot_stale"},
		{"agent_down"},
	}
}

// TestAlerts makes what alerts are for happen, sees them fire in a Prometheus
// with the project's rules, and resolve when it is over.
func TestAlerts(t *testing.T) {
	cases := alertCases()
	m := newMonitored(t)
	p := startPrometheus(t, m.lab, scraping{rules: shortRules(t), labels: map[string]string{"node": "node1", "namespace": "svcscope"}})
	if known := p.alertRules(); !slices.Equal(known, sortedKeys(cases)) {
		t.Errorf("Prometheus has the alerts %v, the test knows %v", known, sortedKeys(cases))
	}
	p.scraped(15)
	// Until Prometheus has scraped for the first time there is no agent for it,
	// which an alert that hardly waits may notice.
	if fired := missing(p.everFired(), []string{"SvcscopeAbsent"}); len(fired) > 0 {
		t.Errorf("in health these fire: %v", fired)
	}
	for _, phase := range phases() {
		t.Run(strings.Join(phase, ","), func(t *testing.T) {
			m.t = t
			var want []string
			for name, c := range cases {
				if slices.Contains(phase, c.fault) {
					want = append(want, name)
				}
			}
			slices.Sort(want)
			m.during(func() {
				eventually(t, "alerts fire", func() error {
					if fired := p.everFired(); len(missing(want, fired)) > 0 {
						return fmt.Errorf("want %v, missing %v", want, missing(want, fired))
					}
					return nil
				})
			}, phase...)
		})
	}
	m.t = t
	eventually(t, "all alerts resolve", func() error {
		if active := p.active(); len(active) > 0 {
			return fmt.Errorf("%v", active)
		}
		return nil
	})
	result(t, "%d of %d alerts fired in faults made for real, and resolved", len(p.everFired()), len(cases))
	for _, name := range p.everFired() {
		if c := cases[name]; c.fault == "" {
			t.Errorf("%s fired, although it %s", name, c.why)
		}
	}
}

func missing(want, have []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(have, s) })
}

// alertRules are the names of the alerts that Prometheus has loaded.
func (p *prometheus) alertRules() []string {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.api("rules", url.Values{"type": {"alert"}}, &data); err != nil {
		p.t.Fatal(err)
	}
	names := map[string]bool{}
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			names[r.Name] = true
		}
	}
	return sortedKeys(names)
}

// active are the alerts that fire now or wait to.
func (p *prometheus) active() []string {
	p.t.Helper()
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	if err := p.api("alerts", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	names := map[string]bool{}
	for _, a := range data.Alerts {
		names[a.Labels["alertname"]+" "+a.State] = true
	}
	return sortedKeys(names)
}

// everFired are the alerts that have fired since Prometheus started.
func (p *prometheus) everFired() []string {
	p.t.Helper()
	v, err := p.query(`count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))`)
	if err != nil {
		p.t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range v {
		names[s.Metric["alertname"]] = true
	}
	return sortedKeys(names)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
