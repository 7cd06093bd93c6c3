// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/svcscope/svcscope/pkg/correlate"
	"github.com/svcscope/svcscope/pkg/kernel"
	"github.com/svcscope/svcscope/pkg/metrics"
)

// collector keeps how the readings of one source go.
type collector struct {
	correlate.CollectorState
	tried  bool
	logged time.Time // when a failure was logged
	told   string    // its text
	log    *slog.Logger
	reads  *metrics.ReadDurations
	// netAdmin reports whether this process has CAP_NET_ADMIN.
	netAdmin func() (bool, error)
}

// sayEvery is the least time between two failures of one source in the log,
// unless it was read in between.
const sayEvery = time.Minute

// report notes the outcome of one reading. A change is logged, a repetition
// is not.
func (c *collector) report(begin, end time.Time, err error) {
	was, tried := c.Success, c.tried
	c.tried, c.Success, c.Duration, c.Err = true, err == nil, end.Sub(begin), ""
	c.Denied = c.denied(err)
	c.reads.Observe(c.Name, c.Duration)
	if err == nil {
		c.LastSuccess = end
		if tried && !was {
			c.log.Info("source is read again", "source", c.Name)
		}
		return
	}
	c.Err = err.Error()
	if was || !tried || c.Err != c.told && end.Sub(c.logged) >= sayEvery {
		c.told, c.logged = c.Err, end
		c.fail(err)
	}
}

// capabilityRemedy is what to do without the capability, for the log.
const capabilityRemedy = "run as UID 0 with the capability NET_ADMIN; without it rules and conntrack statistics stay unread"

// fail logs a failure.
func (c *collector) fail(err error) {
	level, attrs := slog.LevelError, []any{"source", c.Name, "err", err}
	switch {
	case errors.Is(err, kernel.ErrInterrupted):
		level = slog.LevelWarn // the rules are busy; nothing is broken
	case c.Denied:
		level = slog.LevelWarn // somebody's choice, maybe
		attrs = append(attrs, "remedy", capabilityRemedy)
	}
	c.log.Log(context.Background(), level, "source cannot be read", attrs...)
}

// denied reports whether err is the lack of a capability and nothing else, in
// a process that was given none. One that has CAP_NET_ADMIN and is refused is
// in the wrong user namespace or under a policy: a fault.
func (c *collector) denied(err error) bool {
	if err == nil || !onlyCapability(err) {
		return false
	}
	has, why := c.netAdmin()
	return why == nil && !has
}

// onlyCapability reports whether every error that is joined in err is a
// *kernel.CapabilityError.
func onlyCapability(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !onlyCapability(e) })
	}
	_, ok := errors.AsType[*kernel.CapabilityError](err)
	return ok
}

// reader opens something when it is first needed, and again after it failed to
// open.
type reader[T io.Closer] struct {
	open  func() (T, error)
	value T
	ready bool
}

func (r *reader[T]) get() (T, error) {
	if !r.ready {
		v, err := r.open()
		if err != nil {
			var none T
			return none, err
		}
		r.value, r.ready = v, true
	}
	return r.value, nil
}

func (r *reader[T]) close() error {
	if !r.ready {
		return nil
	}
	r.ready = false
	return r.value.Close()
}

// errUnread marks a collector that has not been tried.
var errUnread = errors.New("not read yet")
