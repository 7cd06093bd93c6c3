// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"reflect"
	"strings"
	"unicode/utf8"
)

// Names and comments of the kernel are bytes, and JSON's strings are Unicode: bytes that
// are no UTF-8 are written as the code points from byteRunes on, of a private area. So
// are the bytes of these code points themselves, so that every text comes back as it
// was.
const byteRunes = 0x10ff00

// escape makes a text of bytes.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, isByteRune) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || isByteRune(r) {
			for i := range n {
				b.WriteRune(byteRunes + rune(s[i]))
			}
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// unescape is its opposite.
func unescape(s string) string {
	if !strings.ContainsFunc(s, isByteRune) {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if isByteRune(r) {
			b = append(b, byte(r-byteRunes))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

func isByteRune(r rune) bool { return r >= byteRunes && r <= byteRunes+0xff }

// mapStrings changes the strings of a struct without pointers.
func mapStrings(v reflect.Value, change func(string) string) {
	for _, f := range v.Fields() {
		if f.Kind() == reflect.String {
			f.SetString(change(f.String()))
		}
	}
}
