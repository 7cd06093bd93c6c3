// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// listenSubcommand is the first argument that makes the lab program a listener
// that does as little as one can.
const listenSubcommand = "__listen"

// heard is what a listener says when it is told to end.
type heard struct {
	Datagrams int   `json:"datagrams"`
	Bytes     int64 `json:"bytes"`
	// Overruns is how often the kernel had no room for a notice.
	Overruns int `json:"overruns"`
}

// listenMain joins the notices of nf_tables and reads them until SIGTERM.
func listenMain([]string) error {
	const (
		groupNFTables = 7       // NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h
		room          = 8 << 20 // bytes, doubled by the kernel
	)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// Without the host's root it is what the system allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupNFTables); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	fmt.Println("listening")
	h, err := hear(fd, stop)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(h)
}

func hear(fd int, stop <-chan os.Signal) (h heard, err error) {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		return h, fmt.Errorf("listen: %w", err)
	}
	buf := make([]byte, 1<<20)
	for {
		select {
		case <-stop:
			return h, nil
		default:
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			h.Overruns++
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return h, fmt.Errorf("listen: %w", err)
		default:
			h.Datagrams, h.Bytes = h.Datagrams+1, h.Bytes+int64(n)
		}
	}
}
