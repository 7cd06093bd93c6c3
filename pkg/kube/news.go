// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/service"
)

// Changes is what ChangedSince returns.
type Changes struct {
	// Services holds the Services for which kube-proxy has something to
	// write, each once, the latest change last.
	Services []Change
	// All means that Services does not tell everything: any Service may have
	// changed, as after the first list.
	All bool
	// Version is what to ask with the next time. A catalog with this Version
	// or a later one has these changes.
	Version uint64
}

// Change is a Service that became another, came or went, or whose endpoints
// did.
type Change struct {
	Name service.Name
	Seen time.Time // when its latest change arrived here
}

// ChangedSince tells which Services changed after a version: that of the last
// answer, or 0. It knows of changes as they arrive, up to a second before the
// catalog has them, and hears nothing while State is not Current. Services
// that kube-proxy does not serve are left out: those of other proxies, and
// those without a cluster IP.
func (w *Watcher) ChangedSince(version uint64) Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tables.news.since(version)
}

// Announced gets a value when ChangedSince has something new to say. It has
// one slot, for one reader.
func (w *Watcher) Announced() <-chan struct{} { return w.announced }

// maxNews is how many Services may have changed since the last question
// before the answer is "all".
const maxNews = 1024

// news keeps the latest change of each Service.
type news struct {
	version uint64 // grows with every change, of those that are no news too
	from    uint64 // earlier versions are answered with "all"
	now     time.Time
	list    []newsItem // by version
}

type newsItem struct {
	version uint64
	Change
}

// served reports whether kube-proxy writes rules for s.
func served(s *service.Service) bool { return s != nil && !s.Headless() && s.ProxyName == "" }

// add notes that the newest version is a change of that Service.
func (n *news) add(name service.Name) {
	if i := slices.IndexFunc(n.list, func(c newsItem) bool { return c.Name == name }); i >= 0 {
		n.list = slices.Delete(n.list, i, i+1)
	}
	if len(n.list) == maxNews {
		// Half at once: a list of thousands must not move all for each.
		n.from = n.list[maxNews/2-1].version
		n.list = slices.Delete(n.list, 0, maxNews/2)
	}
	n.list = append(n.list, newsItem{n.version, Change{name, n.now}})
}

// all notes that anything may have changed.
func (n *news) all() {
	n.version++
	n.from, n.list = n.version, nil
}

// latest is the version of the latest news.
func (n *news) latest() uint64 {
	if len(n.list) == 0 {
		return n.from
	}
	return n.list[len(n.list)-1].version
}

func (n *news) since(version uint64) Changes {
	c := Changes{Version: n.version, All: version < n.from}
	i, _ := slices.BinarySearchFunc(n.list, version+1, func(c newsItem, v uint64) int {
		return int(int64(c.version - v))
	})
	for _, item := range n.list[i:] {
		c.Services = append(c.Services, item.Change)
	}
	return c
}
