// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"encoding/binary"
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestTypes packs types as nft does: six bits each, the first highest.
func TestTypes(t *testing.T) {
	for packed, want := range map[uint32][]DataType{
		uint32(TypeIPv4): {TypeIPv4},
		0:                {0},
		uint32(TypeIPv4)<<12 | uint32(TypeInetProto)<<6 | uint32(TypeInetService):                        {TypeIPv4, TypeInetProto, TypeInetService},
		uint32(TypeIPv6)<<18 | uint32(TypeIPv6)<<12 | uint32(TypeInetProto)<<6 | uint32(TypeInetService): {TypeIPv6, TypeIPv6, TypeInetProto, TypeInetService},
	} {
		if d := gocmp.Diff(want, Types(packed)); d != "" {
			t.Errorf("%#x (-want +got):\n%s", packed, d)
		}
	}
}

func TestFields(t *testing.T) {
	service := []DataType{TypeIPv4, TypeInetProto, TypeInetService}
	tests := []struct {
		name  string
		types []DataType
		bytes []byte
		want  [][]byte
		ok    bool
	}{
		{"a padded key", service, []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0}, [][]byte{{10, 0, 0, 1}, {6}, {0, 80}}, true},
		{"without the last padding", service, []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80}, [][]byte{{10, 0, 0, 1}, {6}, {0, 80}}, true},
		{"cut in a field", service, []byte{10, 0, 0, 1, 6, 0, 0, 0, 0}, nil, false},
		{"too long", service, []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 1}, nil, false},
		{"one type has no padding", []DataType{TypeInetService}, []byte{0, 80}, [][]byte{{0, 80}}, true},
		{"one type, padded", []DataType{TypeInetService}, []byte{0, 80, 0, 0}, nil, false},
		{"a type that is not known", []DataType{TypeIPv4, 41}, make([]byte, 20), nil, false},
		{"nothing", service, nil, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Fields(tt.types, tt.bytes)
			if d := gocmp.Diff(tt.want, got); ok != tt.ok || ok && d != "" {
				t.Errorf("%v (-want +got):\n%s", ok, d)
			}
		})
	}
}

// TestFieldsOfCapturedSets reads what the kernel holds for kube-proxy's sets by their
// types.
func TestFieldsOfCapturedSets(t *testing.T) {
	const scene = "kube-proxy-nftables"
	sets := map[string]Set{}
	for _, s := range decodeAll(t, scene, "sets.bin", DecodeSet) {
		sets[nftFamily(s.Family)+" "+s.Name] = s
	}
	if s := sets["ip affinity-5FJ2CRIF-default/sticky/tcp/__10.180.0.6/8080"]; s.Size != 65535 || s.Timeout != 3*3600*1000 {
		t.Errorf("affinity: size %d, timeout %d ms", s.Size, s.Timeout)
	}
	var services, endpoints []string
	for _, es := range decodeAll(t, scene, "elements.bin", DecodeElements) {
		s, ok := sets[nftFamily(es.Family)+" "+es.Set]
		if !ok {
			t.Fatalf("elements of %s, which is not there", es.Set)
		}
		for _, e := range es.Elements {
			if s.Flags&SetInterval != 0 {
				continue
			}
			key, ok := Fields(Types(s.KeyType), e.Key)
			if !ok {
				t.Errorf("%s: key % x is not of the types %v", es.Set, e.Key, Types(s.KeyType))
				continue
			}
			switch es.Set {
			case "service-ips":
				addr, _ := netip.AddrFromSlice(key[0])
				services = append(services, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(key[2])).String()+" "+e.Verdict.Chain)
			case "__map0":
				value, ok := Fields(Types(s.DataType), e.Value)
				if !ok || binary.NativeEndian.Uint32(key[0]) > 2 {
					t.Fatalf("%s: % x : % x", es.Set, e.Key, e.Value)
				}
				addr, _ := netip.AddrFromSlice(value[0])
				endpoints = append(endpoints, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(value[1])).String())
			}
		}
	}
	want := []string{
		"10.96.0.65:80 service-ULMVA6XW-ns1/svc1/tcp/p80", "192.0.2.44:80 external-ULMVA6XW-ns1/svc1/tcp/p80",
		"[fd00:10:96::65]:80 service-ULMVA6XW-ns1/svc1/tcp/p80",
	}
	if d := gocmp.Diff(want, sorted(services)); d != "" {
		t.Errorf("Services (-want +got):\n%s", d)
	}
	want = []string{"10.180.0.1:80", "10.180.0.2:80", "10.180.0.3:80", "[fd00:10:180::1]:80", "[fd00:10:180::2]:80"}
	if d := gocmp.Diff(want, sorted(endpoints)); d != "" {
		t.Errorf("endpoints (-want +got):\n%s", d)
	}
}

// FuzzFields has any types and bytes: fields are parts of the bytes, or there are none.
func FuzzFields(f *testing.F) {
	f.Add(uint32(TypeIPv4)<<12|uint32(TypeInetProto)<<6|uint32(TypeInetService), []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0})
	f.Add(uint32(VerdictData), []byte{})
	f.Fuzz(func(t *testing.T, packed uint32, b []byte) {
		types := Types(packed)
		fields, ok := Fields(types, b)
		if !ok {
			if fields != nil {
				t.Fatal("fields and no fields")
			}
			return
		}
		n := 0
		for i, field := range fields {
			if len(field) != types[i].Len() {
				t.Fatalf("field %d of type %d has %d bytes", i, types[i], len(field))
			}
			n += len(field)
		}
		if len(fields) != len(types) || n > len(b) {
			t.Fatalf("%d fields of %d bytes, of %d types in %d", len(fields), n, len(types), len(b))
		}
	})
}
