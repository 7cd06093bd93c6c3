// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/svcscope/svcscope/hack/lab/internal/topology"
)

// registerNode makes the Node as a kubelet would. kube-proxy asks for its
// addresses when it starts and waits 30 s where there are none.
func registerNode(ctx context.Context, c *Client, node topology.Node) error {
	path := "/api/v1/nodes/" + node.Name()
	cidrs := node.PodCIDRs()
	err := c.Apply(ctx, path, Object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": Object{"name": node.Name(), "labels": Object{
			"kubernetes.io/hostname": node.Name(), "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "zone-a",
		}},
		"spec": Object{"podCIDR": cidrs[0], "podCIDRs": cidrs},
	})
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	// Not applied but put: the schema takes the address's type for a key
	// and refuses two of one type.
	o, err := c.Get(ctx, path)
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	o["status"] = Object{
		"addresses": []Object{
			{"type": "InternalIP", "address": node.IPv4()},
			{"type": "InternalIP", "address": node.IPv6()},
			{"type": "Hostname", "address": node.Name()},
		},
		"conditions": []Object{{
			"type": "Ready", "status": "True", "reason": "Lab", "message": "a node of the lab",
			"lastHeartbeatTime": now, "lastTransitionTime": now,
		}},
	}
	err = c.Put(ctx, path+"/status", o)
	if err != nil {
		return fmt.Errorf("set status of node: %w", err)
	}
	return nil
}

// exposeAPI gives the Service default/kubernetes its endpoint, which the API
// server's own reconciler would do.
func exposeAPI(ctx context.Context, c *Client) error {
	return c.Apply(ctx, slicePath("default", "kubernetes"), Object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  Object{"name": "kubernetes", "labels": Object{"kubernetes.io/service-name": "kubernetes"}},
		"endpoints": []Object{{"addresses": []string{topology.Control4}, "conditions": Object{"ready": true}}},
		"ports":     []Object{{"name": "https", "port": 6443, "protocol": "TCP"}},
	})
}

func slicePath(namespace, name string) string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices/" + name
}

func servicePath(namespace, name string) string {
	return "/api/v1/namespaces/" + namespace + "/services/" + name
}

// synced reports whether kube-proxy has written rules of both families, by
// its metrics. It is "healthy" before that.
func synced(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, resp.Status, b)
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		re := regexp.MustCompile(`(?m)^kubeproxy_sync_proxy_rules_duration_seconds_count\{ip_family="` + family + `"\} [1-9]`)
		if !re.Match(b) {
			return fmt.Errorf("no %s sync yet", family)
		}
	}
	return nil
}
