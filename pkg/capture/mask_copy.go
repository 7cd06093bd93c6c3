// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/json"
	"net/netip"
	"reflect"
)

var (
	addrType     = reflect.TypeFor[netip.Addr]()
	addrPortType = reflect.TypeFor[netip.AddrPort]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	numberType   = reflect.TypeFor[json.Number]()
)

// into sets dst, which is zero, to the masked copy of src.
func (m *masker) into(dst, src reflect.Value) {
	switch src.Type() {
	case addrType:
		dst.Set(reflect.ValueOf(m.addr(src.Interface().(netip.Addr))))
		return
	case addrPortType:
		dst.Set(reflect.ValueOf(m.addrPort(src.Interface().(netip.AddrPort))))
		return
	case prefixType:
		dst.Set(reflect.ValueOf(m.prefix(src.Interface().(netip.Prefix))))
		return
	case numberType:
		dst.Set(src)
		return
	}
	switch src.Kind() {
	case reflect.String:
		dst.SetString(m.text(src.String()))
	case reflect.Struct:
		for i := range src.NumField() {
			m.into(dst.Field(i), src.Field(i))
		}
	case reflect.Slice:
		m.slice(dst, src)
	case reflect.Map:
		m.mapped(dst, src)
	case reflect.Pointer:
		if !src.IsNil() {
			dst.Set(reflect.New(src.Type().Elem()))
			m.into(dst.Elem(), src.Elem())
		}
	case reflect.Interface:
		if !src.IsNil() {
			v := reflect.New(src.Elem().Type()).Elem()
			m.into(v, src.Elem())
			dst.Set(v)
		}
	default:
		dst.Set(src)
	}
}

func (m *masker) slice(dst, src reflect.Value) {
	if src.IsNil() || src.Type().Elem().Kind() == reflect.Uint8 {
		return
	}
	dst.Set(reflect.MakeSlice(src.Type(), src.Len(), src.Len()))
	for i := range src.Len() {
		m.into(dst.Index(i), src.Index(i))
	}
}

func (m *masker) mapped(dst, src reflect.Value) {
	if src.IsNil() {
		return
	}
	dst.Set(reflect.MakeMapWithSize(src.Type(), src.Len()))
	for key, value := range src.Seq2() {
		k, v := reflect.New(src.Type().Key()).Elem(), reflect.New(src.Type().Elem()).Elem()
		m.into(k, key)
		m.into(v, value)
		dst.SetMapIndex(k, v)
	}
}
