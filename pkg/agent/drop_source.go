// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/netfilter/nflog"
	"github.com/svcscope/svcscope/pkg/service"
)

// dropInputs is what logged packets are held against.
type dropInputs struct {
	// loggers are all rules that log; the same slice while they are the same.
	loggers []correlate.FamilyLogger
	calico  bool // its chains are there
	// catalog and rows are as in correlate.FlowInputs; flows has all of it.
	catalog *service.Catalog
	rows    []*correlate.ServicePort
	// pods and policies are nil where they are not watched.
	pods     *service.Pods
	policies *service.Policies
	flows    func() correlate.FlowInputs
	// tap is set for packets that the tap has logged.
	tap *correlate.TapPlan
}

// same reports whether packets mean with in what they meant with old.
func (in *dropInputs) same(old *dropInputs) bool {
	synced := in.catalog != nil && in.catalog.Synced // then rows do not matter
	return in.catalog == old.catalog && in.pods == old.pods && in.policies == old.policies && in.tap == old.tap &&
		slices.Equal(in.loggers, old.loggers) && (synced || slices.Equal(in.rows, old.rows))
}

// renewEvery bounds how often what packets are held against is made anew while it
// changes.
const renewEvery = time.Second

// renewAll is how long at most it stays as it is: addresses of the node are not among what
// is compared.
const renewAll = time.Minute

// dropSource reads one group of NFLOG.
type dropSource struct {
	log    packetLog
	events *dropLog
	in     func() dropInputs

	reader *correlate.DropReader
	renewal
	batch []correlate.DropEvent
}

// run reads until ctx ends or the socket fails.
func (d *dropSource) run(ctx context.Context) error {
	for {
		var now time.Time // of the datagram that comes
		err := d.log.Next(ctx, func(p *nflog.Packet) {
			if now.IsZero() {
				now = time.Now()
				d.renew(now)
			}
			var e correlate.DropEvent
			ok := d.reader.Read(p, now, &e)
			if !ok && d.with.tap != nil && d.in().tap != d.with.tap { // its way has just become one
				d.tried, d.made = time.Time{}, time.Time{}
				d.renew(now)
				ok = d.reader.Read(p, now, &e)
			}
			if ok {
				d.batch = append(d.batch, e)
			}
		})
		d.events.add(d.batch)
		d.batch = d.batch[:0]
		if err != nil {
			return err
		}
	}
}

// renew makes the reader anew where something has changed.
func (d *dropSource) renew(now time.Time) {
	if d.due(d.in, now) {
		if d.with.tap != nil {
			d.reader = correlate.NewTapReader(d.with.tap, d.with.flows())
		} else {
			d.reader = correlate.NewDropReader(d.with.loggers, d.with.flows())
		}
	}
}
