// SPDX-License-Identifier: Apache-2.0

// Package traffic is both ends of the lab's connections: small servers for
// the pods, and a client that opens an exact number of connections.
package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Ports on which every pod serves.
const (
	HTTPPort = 8080
	UDPPort  = 5353
)

// Answer is what a pod says to each request, as JSON.
type Answer struct {
	// Pod is the name of the pod that answers.
	Pod string `json:"pod"`
	// Client is the address and port it sees the request come from.
	Client string `json:"client"`
}

// Server answers HTTP and UDP requests with the pod's name.
type Server struct {
	// Name is told in every answer.
	Name string
	// Host is the address to listen on; empty means all, in both families.
	Host string
	// HTTPPort and UDPPort are where it listens; 0 lets the kernel choose.
	HTTPPort, UDPPort int

	tcp *net.TCPListener
	udp *net.UDPConn
}

// Listen opens the sockets.
func (s *Server) Listen() error {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(s.Host), Port: s.HTTPPort})
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(s.Host), Port: s.UDPPort})
	if err != nil {
		tcp.Close()
		return fmt.Errorf("serve UDP: %w", err)
	}
	// A burst of datagrams must not be lost in the server's own queue.
	_ = udp.SetReadBuffer(4 << 20)
	s.tcp, s.udp = tcp, udp
	return nil
}

// Addrs returns where the server listens after Listen.
func (s *Server) Addrs() (tcp, udp net.Addr) { return s.tcp.Addr(), s.udp.LocalAddr() }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			// One request a connection: a connection is what is counted.
			w.Header().Set("Connection", "close")
			_ = json.NewEncoder(w).Encode(Answer{Pod: s.Name, Client: r.RemoteAddr})
		}),
	}
	errs := make(chan error, 2)
	var both sync.WaitGroup
	both.Go(func() { errs <- srv.Serve(s.tcp) })
	both.Go(func() { errs <- s.echo() })
	stop := context.AfterFunc(ctx, func() { srv.Close(); s.udp.Close() })
	defer stop()
	err := <-errs
	srv.Close()
	s.udp.Close()
	both.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// echo answers each datagram until the socket is closed.
func (s *Server) echo() error {
	buf := make([]byte, 2048)
	for {
		_, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		b, err := json.Marshal(Answer{Pod: s.Name, Client: from.String()})
		if err != nil {
			return err
		}
		if _, err := s.udp.WriteToUDPAddrPort(b, from); errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}
