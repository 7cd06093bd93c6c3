// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"reflect"
	"slices"
	"testing"
)

type decoder struct {
	file   string
	decode func([]byte) (any, error)
}

func anyOf[T any](f func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return f(b) }
}

func decoders() []decoder {
	return []decoder{
		{"gen.bin", anyOf(DecodeGen)},
		{"tables.bin", anyOf(DecodeTable)},
		{"chains.bin", anyOf(DecodeChain)},
		{"rules.bin", anyOf(DecodeRule)},
		{"rules.bin", anyOf(NewRuleScanner().Scan)},
		{"sets.bin", anyOf(DecodeSet)},
		{"elements.bin", anyOf(DecodeElements)},
	}
}

// errorXorValue fails tb if decode returns both an error and a value.
func errorXorValue(tb testing.TB, d decoder, b []byte) {
	tb.Helper()
	if v, err := d.decode(b); err != nil && !reflect.ValueOf(v).IsZero() {
		tb.Fatalf("%s: error %v and a value %+v", d.file, err, v)
	}
}

func TestDamagedMessages(t *testing.T) {
	for _, d := range decoders() {
		for _, scene := range scenes {
			msgs := payloads(t, scene, d.file)
			if testing.Short() && len(msgs) > 20 {
				msgs = msgs[:20]
			}
			for _, b := range msgs {
				for i := range b {
					errorXorValue(t, d, b[:i])
					for _, flip := range []byte{0x01, 0x80, 0xff} {
						c := slices.Clone(b)
						c[i] ^= flip
						errorXorValue(t, d, c)
					}
				}
			}
		}
	}
}

// TestCutRuleIsNoRule makes sure that a rule cut inside its expressions does
// not pass for a shorter one.
func TestCutRuleIsNoRule(t *testing.T) {
	for _, b := range payloads(t, "kube-proxy", "rules.bin") {
		for i := 4; i < len(b); i++ {
			if r, err := DecodeRule(b[:i]); err == nil && len(b)-i > 3 && len(r.Exprs) > 0 && r.UserData == nil {
				full, _ := DecodeRule(b)
				if len(full.Exprs) != len(r.Exprs) {
					t.Fatalf("rule of %d bytes cut to %d decodes to %d of %d expressions", len(b), i, len(r.Exprs), len(full.Exprs))
				}
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for i, d := range decoders() {
		for _, scene := range scenes {
			for _, b := range payloads(f, scene, d.file) {
				f.Add(uint8(i), b)
			}
		}
	}
	all := decoders()
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		d := all[int(i)%len(all)]
		before := slices.Clone(b)
		errorXorValue(t, d, b)
		if !slices.Equal(before, b) {
			t.Fatal("the decoder changed its input")
		}
	})
}
