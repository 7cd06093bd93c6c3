// SPDX-License-Identifier: Apache-2.0

package nlattr

import "encoding/binary"

// Append appends one attribute with its padding. Values of 65,532 bytes and
// more do not fit in an attribute and are the caller's mistake; they are cut.
func Append(b []byte, typ uint16, value []byte) []byte {
	value = value[:min(len(value), 1<<16-1-AttrHeaderLen)]
	b = binary.NativeEndian.AppendUint16(b, uint16(AttrHeaderLen+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for range align(len(value)) - len(value) {
		b = append(b, 0)
	}
	return b
}

// AppendString appends a NUL-terminated string attribute.
func AppendString(b []byte, typ uint16, s string) []byte {
	return Append(b, typ, append([]byte(s), 0))
}

// AppendUint32 appends a big-endian attribute of 4 bytes.
func AppendUint32(b []byte, typ uint16, v uint32) []byte {
	return Append(b, typ, binary.BigEndian.AppendUint32(nil, v))
}

// AppendNested appends value, a run of attributes, as one nested attribute.
func AppendNested(b []byte, typ uint16, value []byte) []byte {
	return Append(b, typ|nested, value)
}
