// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"errors"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/pkg/netfilter/nlattr"
)

// MakeAccount makes a counter object of nfnetlink_acct in the test's network
// namespace, as kube-proxy does. It skips the test where the kernel has none.
func MakeAccount(tb testing.TB, name string) {
	tb.Helper()
	const newAccount = 0 // NFNL_MSG_ACCT_NEW
	Need(tb, Feature{
		Name:  "nfacct objects (CONFIG_NETFILTER_NETLINK_ACCT)",
		Probe: func() error { return account(newAccount, netlink.Create, name) },
	})
}

// DeleteAccount deletes such an object, in which no rule may count any more: nf_tables
// lets it go some time after the rule's end.
func DeleteAccount(tb testing.TB, name string) {
	tb.Helper()
	const delAccount = 3 // NFNL_MSG_ACCT_DEL
	err := account(delAccount, 0, name)
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		err = account(delAccount, 0, name)
	}
	if err != nil {
		tb.Fatalf("delete nfacct object %s: %v", name, err)
	}
}

func account(typ uint16, flags netlink.HeaderFlags, name string) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	const attrName = 1 // NFACCT_NAME
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_ACCT<<8 | typ),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: nlattr.AppendString(make([]byte, 4), attrName, name), // after a struct nfgenmsg
	})
	return err
}
