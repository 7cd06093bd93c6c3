// SPDX-License-Identifier: Apache-2.0

// Command ipvs makes connections and stores the kernel's messages of them, in the
// machine that vm.sh boots; see README.md.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/capture/scene"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("flows: ")
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "dump":
		return dump(args[1])
	case len(args) == 4:
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return connect(args[0], args[1], args[2], n)
	}
	return fmt.Errorf("usage: flows serve ADDR | dump DIR | open|close|try tcp|udp ADDR N")
}

// serve answers what comes, over TCP and UDP.
func serve(addr string) error {
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(b[:n], from)
		}
	}()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			b := make([]byte, 1)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
				_, _ = c.Write(b)
			}
		}()
	}
}

// connect makes n connections one after the other. "open" leaves them open, "close"
// ends them, "try" does not expect an answer.
func connect(how, network, addr string, n int) error {
	if how == "open" && os.Getenv(holder) == "" {
		return hold()
	}
	for range n {
		c, err := dial(network, addr)
		if how == "try" {
			continue
		}
		if err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return err
		}
		if how == "close" {
			_ = c.Close()
		}
	}
	if how == "open" {
		fmt.Println("open")
		select {} // the machine's end is its own
	}
	return nil
}

// dial sends a byte; where nothing answers it gives up after a second.
func dial(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, time.Second)
	if err == nil {
		_, err = c.Write([]byte("x"))
	}
	return c, err
}

const holder = "FLOWS_HOLDER"

// hold has another process make the connections and keep them, and returns when
// they are open.
func hold() error {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env, cmd.Stderr = append(os.Environ(), holder+"=1"), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	return err
}

// dump stores the entries of both families.
func dump(dir string) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for family, file := range map[netfilter.Family]string{netfilter.IPv4: "flows.bin", netfilter.IPv6: "flows6.bin"} {
		msgs, err := scene.Ask(c, unix.NFNL_SUBSYS_CTNETLINK<<8|1, family, nil) // IPCTNL_MSG_CT_GET
		if err != nil {
			return err
		}
		if err := scene.Write(dir, file, msgs); err != nil {
			return err
		}
	}
	return nil
}
