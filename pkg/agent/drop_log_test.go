// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/policy"
)

// numbered are n events of one rule, whose number is in In.
func numbered(from, n int, refused bool) []correlate.DropEvent {
	rule := &correlate.DropRule{Source: correlate.SourceNFLOG, Group: 100, Hook: "forward", Refused: refused, Refuser: policy.Refuser{Owner: policy.KubeRouter, Reason: policy.DefaultDeny}}
	all := make([]correlate.DropEvent, n)
	for i := range all {
		all[i] = correlate.DropEvent{DropRule: rule, In: uint32(from + i)}
	}
	return all
}

// TestDropLogKeepsTheLast, and tells its readers what they have missed.
func TestDropLogKeepsTheLast(t *testing.T) {
	l := newDropLog()
	if events, missed, next, _ := l.after(0, 10); len(events) != 0 || missed != 0 || next != 0 {
		t.Errorf("got %d events, %d missed, next %d of an empty log", len(events), missed, next)
	}
	l.add(numbered(0, 5, true))
	l.add(numbered(5, maxDrops, true))
	l.add(numbered(0, 7, false))
	events, missed, next, _ := l.after(0, 3)
	if len(events) != 3 || events[0].In != 12 || missed != 12 || next != 15 {
		t.Errorf("got %d events from %d on, %d missed, next %d", len(events), events[0].In, missed, next)
	}
	events, missed, next, more := l.after(next, 2*maxDrops)
	if len(events) != maxDrops-3 || missed != 0 || next != maxDrops+12 {
		t.Errorf("got %d events, %d missed, next %d", len(events), missed, next)
	}
	select {
	case <-more:
		t.Error("there is more")
	default:
	}
	l.add(numbered(1, 1, true))
	<-more
	if from := l.newest(1); from != maxDrops+12 {
		t.Errorf("the newest is number %d", from)
	}
	key := correlate.WitnessKey{Source: correlate.SourceNFLOG, Reason: "policy_default"}
	if d := cmp.Diff(map[correlate.WitnessKey]uint64{key: maxDrops + 6}, l.take()); d != "" {
		t.Errorf("refused (-want +got):\n%s", d)
	}
	if n := len(l.take()); n != 0 {
		t.Errorf("%d counts are told twice", n)
	}
}

// TestDropsOverHTTP reads the report, and follows events until the agent ends.
func TestDropsOverHTTP(t *testing.T) {
	s := webSampler(t, "", nil)
	address := startWeb(t, s)[0]
	e, f := numbered(0, 1, true), ipv4()
	e[0].Service, e[0].Frontend = webPort, f.cluster()
	s.groups.events.add(e)

	var report correlate.DropsReport
	code, body, err := visit(t, "http://"+address+"/api/v1/drops", nil)
	if err == nil {
		err = json.Unmarshal([]byte(body), &report)
	}
	if err != nil || code != http.StatusOK || len(report.Events) != 1 || report.Events[0].Service.Name != "web" {
		t.Fatalf("%d, %v: %s", code, err, body)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/drops?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.groups.events.add(numbered(0, 2, true))
	lines := bufio.NewScanner(resp.Body)
	for range 2 {
		var d correlate.DropEventReport
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil || d.Hook != "forward" || d.Reason != "policy_default" || d.Owner != "kube-router" || *d.Group != 100 {
			t.Errorf("%v: %s", err, lines.Text())
		}
	}
}
