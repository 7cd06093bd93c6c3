// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
)

// mute answers as the kernel does until silent is set, then not at all.
type mute struct {
	*scene
	silent bool
}

func (m *mute) answer(req netlink.Message) ([]netlink.Message, error) {
	if m.silent {
		return nil, nil
	}
	return m.scene.answer(req)
}

func TestSilentKernel(t *testing.T) {
	s := readScene(t, "plain")
	synctest.Test(t, func(t *testing.T) {
		m := &mute{scene: s}
		k := &fakeKernel{answer: m.answer}
		n := openFake(t, k)
		m.silent = true
		begin := time.Now()
		r, err := n.Read(t.Context(), nil)
		if r != nil || !errors.Is(err, ErrTimeout) || !strings.HasPrefix(err.Error(), "read nf_tables rules: ") {
			t.Errorf("read: got %v, %v; want ErrTimeout", r, err)
		}
		if d := time.Since(begin); d != 30*time.Second || k.open != 0 {
			t.Errorf("after %v, %d sockets are open", d, k.open)
		}
		if _, err := n.Generation(t.Context()); !errors.Is(err, ErrTimeout) || !strings.HasPrefix(err.Error(), "read nf_tables generation: ") {
			t.Errorf("generation: got %v, want ErrTimeout", err)
		}
		m.silent = false
		if _, err := n.Read(t.Context(), nil); err != nil || k.dials != 3 {
			t.Errorf("once it answers: %v after %d dials, want 3", err, k.dials)
		}
		m.silent = true
		c, err := openConntrack(fakeRoot(t, map[string]string{"nf_conntrack_count": "0\n"}), k.dial)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Stats(t.Context()); !errors.Is(err, ErrTimeout) || !strings.HasPrefix(err.Error(), "read conntrack statistics: ") {
			t.Errorf("statistics: got %v, want ErrTimeout", err)
		}
		if _, err := openNFTables(fakeRoot(t, nil), k.dial); !errors.Is(err, ErrTimeout) || !strings.HasPrefix(err.Error(), "open nf_tables: ") {
			t.Errorf("open: got %v, want ErrTimeout", err)
		}
	})
}

func TestReadPausesBetweenAttempts(t *testing.T) {
	spoil := func(_ requestType, m []netlink.Message) { m[len(m)-1].Header.Flags |= netlink.DumpInterrupted }
	s := readScene(t, "plain")
	synctest.Test(t, func(t *testing.T) {
		for changes, want := range []time.Duration{0, 1, 3, 7, 15, 31, 63, 127, 255, 255} {
			begin := time.Now()
			r, err := openFake(t, disturbed(s, changes, spoil)).Read(t.Context(), nil)
			if errors.Is(err, ErrInterrupted) != (changes == readAttempts) || err == nil && r.Retries != changes {
				t.Errorf("%d changes: got %v", changes, err)
			}
			if d := time.Since(begin); d != want*time.Millisecond {
				t.Errorf("%d changes: took %v, want %v ms", changes, d, int(want))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := openFake(t, disturbed(s, readAttempts, spoil)).Read(ctx, nil)
		if d := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || d != 50*time.Millisecond {
			t.Errorf("got %v after %v, want the end of the context", err, d)
		}
	})
}

func TestSocketThatWaitsIsInterrupted(t *testing.T) {
	s, err := dialNetfilter()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Receive(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want to be interrupted", err)
	}
}
