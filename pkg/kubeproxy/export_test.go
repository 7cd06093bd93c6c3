// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"testing"

	"github.com/svcscope/svcscope/pkg/netfilter"
	"github.com/svcscope/svcscope/pkg/ruleset"
)

// What follows is for tests beside packages that import this one.

// Load is load.
func Load(t testing.TB, family netfilter.Family, file string) *ruleset.Ruleset {
	return load(t, family, file)
}

// Golden compares a view with a file.
func Golden(t *testing.T, file string, v *View) { golden(t, file, describe(v)) }
