// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/svcscope/svcscope/hack/lab/labtest"
)

func TestForward(t *testing.T) {
	lab := labtest.Start(t, labtest.Options{Rules: "scenes/demo.v4.rules"})
	address := lab.Forward("pod2:8080")
	for range 3 {
		resp, err := http.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), "pod2") {
			t.Fatalf("through %s answers %q, %v, want pod2", address, body, err)
		}
		http.DefaultClient.CloseIdleConnections() // each time a connection of its own
	}
	// Nobody listens there: the connection ends, the command goes on.
	conn, err := net.Dial("tcp", lab.Forward("pod2:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a port where nobody listens", n)
	}
	out, err := lab.Command("forward", "127.0.0.1:0", "pod2").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "WHERE:PORT") {
		t.Errorf("without a port: %v, %s, want an error that names the form", err, out)
	}
}
