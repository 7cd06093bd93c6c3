// SPDX-License-Identifier: Apache-2.0

package nftables

// DataType is nft's number for the type of a set's key or data, or of one field of a
// concatenation (enum datatypes in nft's include/datatype.h). The kernel keeps the
// numbers and does not look at them.
type DataType uint32

// The types that tell what is in kube-proxy's sets.
const (
	TypeInteger     DataType = 4  // numgen's, in the host's order
	TypeIPv4        DataType = 7  // ipv4_addr
	TypeIPv6        DataType = 8  // ipv6_addr
	TypeInetProto   DataType = 12 // inet_proto
	TypeInetService DataType = 13 // inet_service, a port
	TypeMark        DataType = 19 // mark, in the host's order
)

// typeBits is how many bits one of several types has (TYPE_BITS there).
const typeBits = 6

// Types returns the types of a concatenation in the order of its fields, or the one
// type of what is none.
func Types(packed uint32) []DataType {
	n := 1
	for rest := packed >> typeBits; rest != 0; rest >>= typeBits {
		n++
	}
	types := make([]DataType, n)
	for i := n - 1; i >= 0; i-- {
		types[i] = DataType(packed & (1<<typeBits - 1))
		packed >>= typeBits
	}
	return types
}

// Len is how many bytes a value has; 0 of a type that is not known here.
func (t DataType) Len() int {
	switch t {
	case TypeInteger, TypeIPv4, TypeMark:
		return 4
	case TypeIPv6:
		return 16
	case TypeInetProto:
		return 1
	case TypeInetService:
		return 2
	}
	return 0
}

// Fields splits a key or a value into its fields: each of those of a concatenation
// begins at a multiple of four bytes. ok is false where the bytes are not as the types
// say, or a type is not known. The fields share b's memory.
func Fields(types []DataType, b []byte) (fields [][]byte, ok bool) {
	fields = make([][]byte, 0, len(types))
	for _, t := range types {
		n := t.Len()
		if n == 0 || n > len(b) {
			return nil, false
		}
		fields = append(fields, b[:n:n])
		if len(types) > 1 {
			n = min((n+3)&^3, len(b))
		}
		b = b[n:]
	}
	return fields, len(b) == 0
}
