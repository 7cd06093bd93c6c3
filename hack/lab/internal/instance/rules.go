// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
)

var nfacctMatch = regexp.MustCompile(`-m nfacct --nfacct-name +(\S+) `)

// loadRules gives the node rules from files. kube-proxy makes the nfacct
// objects that its rules name, and writes rules without them where the
// kernel has no such objects; so does this.
func (s *supervisor) loadRules(ctx context.Context) error {
	for _, f := range []struct{ program, file string }{
		{"iptables-restore", s.cfg.Rules4}, {"ip6tables-restore", s.cfg.Rules6},
	} {
		if f.file == "" {
			continue
		}
		b, err := os.ReadFile(f.file)
		if err != nil {
			return fmt.Errorf("load rules: %w", err)
		}
		rules := string(b)
		for _, m := range nfacctMatch.FindAllStringSubmatch(rules, -1) {
			if err := nsexec.Do(s.node.Name(), func() error { return newAccount(m[1]) }); err != nil {
				s.log.Warn("rules without nfacct", "err", err)
				rules = nfacctMatch.ReplaceAllString(rules, "")
				break
			}
		}
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Args = nsexec.Argv("lab", nsexec.Options{Netns: s.node.Name()}, []string{f.program})
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("load rules %s: %w: %s", f.file, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// newAccount makes an nfacct object in the thread's network namespace, if it
// is not there yet: NFNL_MSG_ACCT_NEW of linux/netfilter/nfnetlink_acct.h.
func newAccount(name string) error {
	const (
		subsysAcct = 7 // NFNL_SUBSYS_ACCT
		attrName   = 1 // NFACCT_NAME
	)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("nfacct %s: %w", name, err)
	}
	defer unix.Close(fd)
	ne := binary.NativeEndian
	attr := ne.AppendUint16(nil, uint16(4+len(name)+1))
	attr = ne.AppendUint16(attr, attrName)
	attr = append(append(attr, name...), 0)
	for len(attr)%4 != 0 {
		attr = append(attr, 0)
	}
	msg := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+4+len(attr)))
	msg = ne.AppendUint16(msg, subsysAcct<<8)
	msg = ne.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	msg = append(msg, make([]byte, 8)...)      // sequence and port
	msg = append(msg, unix.AF_UNSPEC, 0, 0, 0) // nfgenmsg
	if err := unix.Sendto(fd, append(msg, attr...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("nfacct %s: %w", name, err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("nfacct %s: %w", name, err)
	}
	if n < unix.SizeofNlMsghdr+4 {
		return fmt.Errorf("nfacct %s: answer of %d bytes", name, n)
	}
	errno := unix.Errno(-int32(ne.Uint32(buf[unix.SizeofNlMsghdr:])))
	if errno != 0 && errno != unix.EEXIST {
		return fmt.Errorf("nfacct %s: %w", name, errno)
	}
	return nil
}
