// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The headers of compression.
const (
	acceptEncoding  = "Accept-Encoding"
	contentEncoding = "Content-Encoding"
	identity        = "identity"
)

// zstdWindow is how far back zstd looks: many rows, but not the megabytes that
// an encoder would else hold.
const zstdWindow = 128 << 10

// encoder compresses to the writer of the last Reset.
type encoder interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// encoding is a way to compress answers.
type encoding struct {
	name string // in the header Accept-Encoding
	pool *sync.Pool
}

// encodings returns what is offered, best first. A page is repetitive: the best
// levels would take more than twice the time of all the rest for a third less of
// a few hundred KB.
func encodings() []encoding {
	return []encoding{
		{"zstd", &sync.Pool{New: func() any {
			w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
				zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
			if err != nil {
				panic(err) // the options are constants
			}
			return w
		}}},
		{"gzip", &sync.Pool{New: func() any {
			w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
			if err != nil {
				panic(err) // the level is a constant
			}
			return w
		}}},
	}
}

// compress lets next answer in an encoding that the client accepts. Answers
// other than 200 are not compressed.
func compress(next http.Handler) http.Handler {
	offers := encodings()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", acceptEncoding)
		e := negotiate(offers, r.Header.Values(acceptEncoding))
		if e == nil {
			next.ServeHTTP(w, r)
			return
		}
		c := &compressed{ResponseWriter: w, encoding: e}
		defer c.close()
		next.ServeHTTP(c, r)
	})
}

// negotiate returns the offer that the client likes best, of several the first
// one; nil where it likes none or the plain page more.
func negotiate(offers []encoding, header []string) *encoding {
	likes := make(map[string]float64)
	for part := range strings.SplitSeq(strings.Join(header, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		weight := 1.0
		if key, value, ok := strings.Cut(strings.TrimSpace(params), "="); ok && strings.EqualFold(key, "q") {
			if q, err := strconv.ParseFloat(value, 64); err == nil {
				weight = q
			}
		}
		likes[strings.ToLower(strings.TrimSpace(name))] = weight
	}
	var best *encoding
	most := likes[identity] // 0 where it is not named: then any other is better
	for i := range offers {
		weight, named := likes[offers[i].name]
		if !named {
			weight = likes["*"]
		}
		if weight > most || weight == most && weight > 0 && best == nil {
			best, most = &offers[i], weight
		}
	}
	return best
}

// compressed is the writer of one answer.
type compressed struct {
	http.ResponseWriter
	encoding *encoding
	encoder  encoder // nil before the header, and where the answer is no page
	begun    bool
}

func (c *compressed) WriteHeader(status int) {
	if !c.begun && status == http.StatusOK {
		c.Header().Set(contentEncoding, c.encoding.name)
		c.encoder = c.encoding.pool.Get().(encoder)
		c.encoder.Reset(c.ResponseWriter)
	}
	c.begun = true
	c.ResponseWriter.WriteHeader(status)
}

func (c *compressed) Write(b []byte) (int, error) {
	if !c.begun {
		c.WriteHeader(http.StatusOK)
	}
	if c.encoder == nil {
		return c.ResponseWriter.Write(b)
	}
	return c.encoder.Write(b)
}

// close ends the answer. That the client went away is not our error.
func (c *compressed) close() {
	if c.encoder == nil {
		return
	}
	_ = c.encoder.Close()
	c.encoder.Reset(io.Discard) // or the pool would hold the connection
	c.encoding.pool.Put(c.encoder)
}
