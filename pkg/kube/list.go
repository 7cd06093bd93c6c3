// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A plain list, of servers that do not stream lists, is one message with all
// objects. It is read one object after the other, each converted at once: the
// whole of 10,000 Services would be in memory three times otherwise.

// protobufMagic begins every protobuf answer
// (apimachinery/pkg/runtime/serializer/protobuf).
const protobufMagic = "k8s\x00"

// maxObject is more than the API server stores in one object.
const maxObject = 64 << 20

// Numbers of the fields that are read.
const (
	unknownRaw   = 2 // runtime.Unknown: the list
	listMetadata = 1 // any list: metav1.ListMeta
	listItems    = 2
)

// Wire types of protobuf.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

var errNotProtobuf = errors.New("not protobuf")

// convertedList is a list of objects that are converted already.
type convertedList struct {
	metav1.TypeMeta
	metav1.ListMeta

	Items []runtime.Object
}

// DeepCopyObject copies the list, not its objects, which nobody changes.
func (l *convertedList) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = append([]runtime.Object(nil), l.Items...)
	return &c
}

// GetObjectKind has nothing to tell.
func (c converted[T]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns c: nobody changes what was converted.
func (c converted[T]) DeepCopyObject() runtime.Object { return c }

// listReader reads the fields of messages.
type listReader struct {
	r    *bufio.Reader
	left uint64 // bytes of the message that is read
	buf  []byte // of field
}

// readList decodes the answer to a list. Each object's message goes to
// convert, which must not keep it. The error is errNotProtobuf, with nothing
// converted, where the answer is of another type.
func readList(in io.Reader, convert func([]byte) (runtime.Object, error)) (*convertedList, error) {
	r := &listReader{r: bufio.NewReaderSize(in, 32<<10), left: math.MaxUint64}
	if magic, err := r.r.Peek(len(protobufMagic)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if string(magic) != protobufMagic {
		return nil, errNotProtobuf
	}
	if err := r.skip(uint64(len(protobufMagic))); err != nil {
		return nil, err
	}
	for {
		number, wire, err := r.tag()
		if err != nil {
			return nil, noEOF(err)
		}
		if number == unknownRaw && wire == wireBytes {
			break
		}
		if err := r.skipField(wire); err != nil {
			return nil, err
		}
	}
	n, err := r.varint()
	if err != nil {
		return nil, noEOF(err)
	}
	r.left = n
	return r.list(convert)
}

// list reads the list's own message.
func (r *listReader) list(convert func([]byte) (runtime.Object, error)) (*convertedList, error) {
	out := &convertedList{}
	for r.left > 0 {
		number, wire, err := r.tag()
		if err != nil {
			return nil, noEOF(err)
		}
		if wire != wireBytes || number != listMetadata && number != listItems {
			if err := r.skipField(wire); err != nil {
				return nil, err
			}
			continue
		}
		message, err := r.field()
		if err != nil {
			return nil, err
		}
		if number == listMetadata {
			if err := out.ListMeta.Unmarshal(message); err != nil {
				return nil, fmt.Errorf("list's metadata: %w", err)
			}
			continue
		}
		item, err := convert(message)
		if err != nil {
			return nil, fmt.Errorf("object %d: %w", len(out.Items), err)
		}
		out.Items = append(out.Items, item)
	}
	return out, nil
}

// ReadByte is for varint; it stays within the message.
func (r *listReader) ReadByte() (byte, error) {
	if r.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	b, err := r.r.ReadByte()
	if err == nil {
		r.left--
	}
	return b, err
}

func (r *listReader) varint() (uint64, error) { return binary.ReadUvarint(r) }

func (r *listReader) tag() (number, wire uint64, err error) {
	v, err := r.varint()
	return v >> 3, v & 7, err
}

// field reads the bytes of a field; they are good until the next call.
func (r *listReader) field() ([]byte, error) {
	n, err := r.varint()
	if err != nil {
		return nil, noEOF(err)
	}
	if n > r.left || n > maxObject {
		return nil, fmt.Errorf("field of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	if uint64(cap(r.buf)) < n {
		r.buf = make([]byte, n+n/4)
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, noEOF(err)
	}
	r.left -= n
	return r.buf, nil
}

func (r *listReader) skipField(wire uint64) error {
	switch wire {
	case wireVarint:
		_, err := r.varint()
		return noEOF(err)
	case wire64:
		return r.skip(8)
	case wire32:
		return r.skip(4)
	case wireBytes:
		n, err := r.varint()
		if err != nil {
			return noEOF(err)
		}
		return r.skip(n)
	}
	return fmt.Errorf("unknown wire type %d", wire)
}

func (r *listReader) skip(n uint64) error {
	if n > r.left || n > math.MaxInt64 {
		return fmt.Errorf("field of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	if _, err := io.CopyN(io.Discard, r.r, int64(n)); err != nil {
		return noEOF(err)
	}
	r.left -= n
	return nil
}

// noEOF: an answer that ends early was cut.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
