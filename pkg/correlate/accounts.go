// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/netfilter"
)

// accounts are the counter objects of nfacct. kube-proxy's rule that drops packets of
// no connection is written anew at every sync, and begins at 0 each time; the object
// that it counts in, too, stays, and is the same for IPv4 and IPv6. What such a rule
// refuses is therefore told by the object, and not by the rule.
type accounts struct {
	all  map[string]*account
	read bool // the first reading, of which all values are the baseline, was made
	some bool // a rule counts in one, or has
}

// account is one object.
type account struct {
	last uint64
	// owed was counted at the last reading, and no rule is known yet that counts here.
	owed uint64
	// labels are those of the rules that count here, where used tells that there are.
	labels DropLabels
	used   bool
}

// Accounts takes a reading of all counter objects, by name. It comes before the
// readings of rules that follow it. The first one is the baseline; an object that
// appears later, or that has fallen, has counted from 0.
func (d *Drops) Accounts(objects map[string]netfilter.Counter, now time.Time) {
	if d.accounts.all == nil {
		d.accounts.all = make(map[string]*account)
	}
	for name := range d.accounts.all {
		if _, ok := objects[name]; !ok {
			delete(d.accounts.all, name)
		}
	}
	for name, c := range objects {
		a := d.accounts.all[name]
		switch {
		case a == nil:
			a = &account{}
			d.accounts.all[name] = a
			if !d.accounts.read {
				a.last = c.Packets
			}
		case c.Packets < a.last:
			a.last = 0
		}
		a.owed, a.last = c.Packets-a.last, c.Packets
		if a.used {
			d.pay(a, now)
		}
	}
	d.accounts.read = true
}

// HasAccounts reports whether any rule counts in an object, or has.
func (d *Drops) HasAccounts() bool { return d.accounts.some }

// pay counts what an object has counted.
func (d *Drops) pay(a *account, now time.Time) {
	d.add(a.labels, a.owed, now)
	a.owed = 0
}

// unaccounted leaves out the rules that are told by an object.
func (d *Drops) unaccounted(all []refusedCounter, now time.Time) []refusedCounter {
	return slices.DeleteFunc(all, func(c refusedCounter) bool {
		d.accounts.some = d.accounts.some || c.nfacct != ""
		a := d.accounts.all[c.nfacct]
		if a == nil {
			return false
		}
		// The rule of one family may be reached where the other's is not yet.
		if !a.used || c.key.Hook != unknownHook {
			a.labels, a.used = c.key.DropLabels, true
		}
		d.pay(a, now)
		return true
	})
}
