// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// Check compares gathered or parsed families with the catalogue: every family
// whose name begins with Prefix must be in it with that type and help, and
// every sample must have exactly its labels with values that it allows. It
// returns all differences joined, or nil. Other families are left alone.
func Check(families []*dto.MetricFamily) error {
	known := make(map[string]*Metric)
	for _, m := range Metrics() {
		known[m.Name] = &m
	}
	var errs []error
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), Prefix) {
			continue
		}
		m := known[f.GetName()]
		if m == nil {
			errs = append(errs, fmt.Errorf("%s is not in the catalogue", f.GetName()))
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != string(m.Type) {
			errs = append(errs, fmt.Errorf("%s is a %s, the catalogue says %s", m.Name, got, m.Type))
		}
		if f.GetHelp() != m.Help {
			errs = append(errs, fmt.Errorf("%s has help %q, the catalogue says %q", m.Name, f.GetHelp(), m.Help))
		}
		for _, sample := range f.GetMetric() {
			if err := checkLabels(m, sample.GetLabel()); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func checkLabels(m *Metric, pairs []*dto.LabelPair) error {
	names := make([]string, 0, len(pairs))
	for _, p := range pairs {
		names = append(names, p.GetName())
		l := m.Label(p.GetName())
		if l == nil {
			return fmt.Errorf("%s: label %s is not in the catalogue", m.Name, p.GetName())
		}
		if !l.Allows(p.GetValue()) {
			return fmt.Errorf("%s: label %s has value %q, the catalogue allows %q", m.Name, l.Name, p.GetValue(), l.Values)
		}
	}
	want := m.LabelNames()
	slices.Sort(want)
	if slices.Sort(names); !slices.Equal(names, want) {
		return fmt.Errorf("%s has labels %q, the catalogue says %q", m.Name, names, want)
	}
	return nil
}
