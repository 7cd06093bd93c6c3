// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"os"
	"testing"
)

// The demo scene's rules are kube-proxy's own, captured in the lab.
func TestDemoRulesAreRecognised(t *testing.T) {
	for file, family := range map[string]string{"demo.v4.rules": "IPv4", "demo.v6.rules": "IPv6"} {
		b, err := os.ReadFile("../../scenes/" + file)
		if err != nil {
			t.Fatal(err)
		}
		r := Rules{ProxyMode: "iptables"}
		for _, e := range Demo() {
			ex := &Exposed{NodePort: e.NodePort}
			if err := r.want(string(b), family, e, ex); err != nil {
				t.Errorf("%s %s: %v", file, e.Name, err)
			}
			for name, other := range changed(e) {
				if err := r.want(string(b), family, other, ex); err == nil {
					t.Errorf("%s %s: %s is not noticed", file, e.Name, name)
				}
			}
		}
	}
}

// changed returns Exposures that the rules of e do not fit.
func changed(e Exposure) map[string]Exposure {
	more, name, port := e, e, e
	more.Endpoints = append([]string{"pod7"}, e.Endpoints...)
	name.Name += "x"
	port.TargetPort++
	out := map[string]Exposure{"another endpoint": more, "another name": name}
	if len(e.Endpoints) > 0 {
		fewer, sticky := e, e
		fewer.Endpoints = e.Endpoints[1:]
		sticky.Affinity = true
		out["a missing endpoint"], out["affinity"], out["another port"] = fewer, sticky, port
	}
	return out
}

func TestChainNameHash(t *testing.T) {
	// Test vectors of kube-proxy's own unit tests.
	for in, want := range map[string]string{
		"default/kubernetes:httpstcp": "NPX46M4PTMTKRN6Y", "kube-system/kube-dns:dnsudp": "TCOU7JCQXEZGVUNU",
	} {
		if got := hash(in); got != want {
			t.Errorf("hash(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestNFTEndpoints(t *testing.T) {
	e := Exposure{Namespace: "default", Name: "web", Protocol: "TCP", PortName: "http", TargetPort: 8080}
	for name, tc := range map[string]struct {
		body string
		want []string
	}{
		"one":           {"meta l4proto tcp dnat to 10.244.1.11:8080", []string{"10.244.1.11"}},
		"one in IPv6":   {"meta l4proto tcp dnat to [fd00:10:244:1::11]:8080", []string{"fd00:10:244:1::11"}},
		"two":           {"dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }", []string{"10.0.0.1", "10.0.0.2"}},
		"with affinity": {"numgen random mod 1 vmap { 0 : goto endpoint-5OJB2KTY-default/web/tcp/http__fd00.10.244.1..11/8080 }", []string{"fd00:10:244:1::11"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := "\tchain service-SUSTUHLJ-default/web/tcp/http {\n\t\t" + tc.body + "\n\t}\n"
			if err := wantNFT(text, e, tc.want); err != nil {
				t.Error(err)
			}
			if err := wantNFT(text, e, append(tc.want, "10.9.9.9")); err == nil {
				t.Error("a missing endpoint is not noticed")
			}
		})
	}
}
