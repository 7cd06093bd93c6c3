// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
)

// FillerNamespace holds the Services that are made by number.
const FillerNamespace = "fill"

// fillerEndpoints is how many endpoints a filler has.
const fillerEndpoints = 3

// firstFiller is where the fillers' addresses begin in the range of cluster
// addresses; there is room for others below.
const firstFiller = 10<<24 | 96<<16 | 2048

// MaxFillers is how many the range of cluster addresses has room for beside
// others.
const MaxFillers = 60000

// Filler returns the Service number i, counted from 0, of those that only
// make the rules many: IPv4, TCP, three endpoints that nobody has.
func Filler(i int) Exposure {
	e := Exposure{
		Namespace: FillerNamespace, Name: fmt.Sprintf("f%05d", i), Type: "ClusterIP",
		Port: 80, TargetPort: 8080, Protocol: "TCP", Families: "v4", ClusterIPs: []string{address4(firstFiller + uint32(i))},
	}
	for k := range fillerEndpoints {
		// 10.128.0.0/9 is no pod's.
		e.Endpoints = append(e.Endpoints, address4(10<<24|128<<16|uint32(fillerEndpoints*i+k+1)))
	}
	return e
}

func address4(n uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b).String()
}

// filler writes fillers where the API server will find them. Through the API
// server, which goes through all addresses for each new one, 10,000 take
// minutes.
type filler struct {
	etcd http.Client
	puts []put
}

type put struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// maxPuts is how many etcd takes in a transaction (--max-txn-ops).
const maxPuts = 128

// fill writes the fillers 0 to n-1 to the etcd that listens in a namespace,
// before the API server starts.
func fill(ctx context.Context, netns string, n int) error {
	f := filler{etcd: http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = nsexec.Do(netns, func() (err error) {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}}}
	now := time.Now().UTC().Format(time.RFC3339)
	for i := range n {
		objects, err := Filler(i).stored(i, now)
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		for key, o := range objects {
			if err := f.put(ctx, key, o); err != nil {
				return fmt.Errorf("fill: %w", err)
			}
		}
	}
	return f.flush(ctx)
}

// stored returns what the API server keeps of a filler, by key.
func (e Exposure) stored(i int, created string) (map[string]Object, error) {
	slices, err := e.slices()
	if err != nil {
		return nil, err
	}
	meta := func(o Object, kind int) {
		m, _ := o["metadata"].(Object)
		m["creationTimestamp"] = created
		m["uid"] = fmt.Sprintf("00000000-0000-4000-8000-%04x%08x", kind, i)
	}
	slice, service := slices["IPv4"], e.service()
	spec, _ := service["spec"].(Object)
	spec["sessionAffinity"], spec["internalTrafficPolicy"] = "None", "Cluster"
	ip := Object{
		"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
		"metadata": Object{"name": e.ClusterIPs[0], "labels": Object{
			"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
		}},
		"spec": Object{"parentRef": Object{"group": "", "resource": "services", "namespace": e.Namespace, "name": e.Name}},
	}
	for kind, o := range []Object{service, slice, ip} {
		meta(o, kind)
	}
	return map[string]Object{
		"/registry/services/specs/" + e.Namespace + "/" + e.Name:              service,
		"/registry/endpointslices/" + e.Namespace + "/" + e.sliceName("IPv4"): slice,
		"/registry/ipaddresses/" + e.ClusterIPs[0]:                            ip,
	}, nil
}

func (f *filler) put(ctx context.Context, key string, o Object) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	f.puts = append(f.puts, put{Key: []byte(key), Value: b})
	if len(f.puts) < maxPuts {
		return nil
	}
	return f.flush(ctx)
}

// flush writes in one transaction, by etcd's JSON gateway.
func (f *filler) flush(ctx context.Context) error {
	if len(f.puts) == 0 {
		return nil
	}
	type request struct {
		Put put `json:"requestPut"`
	}
	var txn struct {
		Success []request `json:"success"`
	}
	for _, p := range f.puts {
		txn.Success = append(txn.Success, request{Put: p})
	}
	f.puts = f.puts[:0]
	b, err := json.Marshal(txn)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+etcdAddress+"/v3/kv/txn", bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	resp, err := f.etcd.Do(req)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd: %s: %s", resp.Status, b)
	}
	return nil
}
