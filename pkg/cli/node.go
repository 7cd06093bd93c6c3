// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/capture"
	"github.com/svcscope/svcscope/pkg/correlate"
)

// readNode reads this node's kernel and the API as one value, or a snapshot, and says
// on stderr which it did. An agent is not asked: what it tells is not all that there is.
func readNode(ctx context.Context, e *env, o sourceOptions) (*capture.Node, error) {
	if o.from != "" {
		s, err := readSnapshot(e, o)
		if err != nil {
			return nil, err
		}
		return s.Node, nil
	}
	c, err := directConfig(e, o)
	if err != nil {
		return nil, err
	}
	n, err := e.readNode(ctx, c)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(e.stderr, "source: this node's kernel%s\n", kubeNote(nodeKube(n)))
	for _, b := range slices.Sorted(maps.Keys(n.Unread)) {
		fmt.Fprintf(e.stderr, "warning: %s: %s\n", b, n.Unread[b])
	}
	return n, nil
}

// directConfig is how to read this node at once: the delay before the first list is
// for agents, of which there are many.
func directConfig(e *env, o sourceOptions) (agent.Config, error) {
	c := o.direct
	c.StartJitter = 0
	name, err := nodeName(e, c.NodeName)
	c.NodeName = name
	return c, err
}

// nodeKube is what a reading says of the API, in the words of reports.
func nodeKube(n *capture.Node) correlate.KubeReport {
	return correlate.KubeReport{
		Enabled: n.Catalog != nil || n.KubeError != "", Synced: n.Catalog != nil, Error: n.KubeError,
	}
}
