// SPDX-License-Identifier: Apache-2.0

package nsexec

import (
	"reflect"
	"testing"
)

func TestArgvIsParsedBack(t *testing.T) {
	for name, o := range map[string]Options{
		"nothing":           {},
		"namespace":         {Netns: "node1", Hostname: "node1"},
		"one capability":    {Netns: "node1", DropCaps: true, Caps: []string{"net_admin"}},
		"no capability":     {DropCaps: true},
		"two capabilities":  {DropCaps: true, Caps: []string{"net_admin", "net_raw"}},
		"names like a flag": {Netns: "-x"},
	} {
		t.Run(name, func(t *testing.T) {
			argv := Argv("lab", o, []string{"sh", "-c", "--", "-net=x"})
			if argv[0] != "lab" || argv[1] != Subcommand {
				t.Fatalf("argv %q", argv)
			}
			got, cmd, err := parse(argv[2:])
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, o) || !reflect.DeepEqual(cmd, []string{"sh", "-c", "--", "-net=x"}) {
				t.Errorf("got %+v %q, want %+v", got, cmd, o)
			}
		})
	}
}

func TestNoCommandIsAnError(t *testing.T) {
	if _, _, err := parse([]string{"-net=a", "--"}); err == nil {
		t.Error("no error")
	}
}

func TestCapabilityNames(t *testing.T) {
	for _, name := range []string{"net_admin", "CAP_NET_ADMIN", "Net_Admin"} {
		if c, ok := Capability(name); !ok || c != 12 {
			t.Errorf("%s: %d, %t", name, c, ok)
		}
	}
	if _, ok := Capability("net_admn"); ok {
		t.Error("a misspelt name is a capability")
	}
}
