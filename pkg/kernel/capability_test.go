// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
)

func TestHasNetAdmin(t *testing.T) {
	for name, keep := range map[string][]int{
		"all": nil, "net_admin": {unix.CAP_NET_ADMIN}, "others": {unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN}, "none": {},
	} {
		t.Run(name, func(t *testing.T) {
			kerneltest.Run(t, func(t *testing.T) {
				if keep != nil {
					kerneltest.DropCapabilities(t, keep...)
				}
				got, err := HasNetAdmin()
				if want := name == "all" || name == "net_admin"; err != nil || got != want {
					t.Errorf("got %v, %v; want %v", got, err, want)
				}
			})
		})
	}
}

func TestEffectiveCapabilities(t *testing.T) {
	tests := []struct {
		status string
		want   uint64
		wrong  bool
	}{
		{"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\nCapBnd:\t0000000000000000\n", 1 << unix.CAP_NET_ADMIN, false},
		{"CapEff:\t0000000000000000", 0, false},
		{"Name:\tCapEff:\nCapPrm:\t0000000000001000\n", 0, true},
		{"CapEff:\tnone\n", 0, true},
		{"", 0, true},
	}
	for _, tt := range tests {
		if got, err := effective(tt.status); got != tt.want || (err != nil) != tt.wrong {
			t.Errorf("%q: got %#x, %v; want %#x, an error: %v", tt.status, got, err, tt.want, tt.wrong)
		}
	}
}
