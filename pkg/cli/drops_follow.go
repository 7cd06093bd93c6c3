// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"github.com/svcscope/svcscope/pkg/agent"
	"github.com/svcscope/svcscope/pkg/correlate"
)

// followDrops prints events as they come, from the agent or from the kernel.
func followDrops(ctx context.Context, e *env, o dropsOptions) error {
	if o.source.agent == noAgent || o.source.direct.Tap {
		return followKernel(ctx, e, o, "")
	}
	err := followAgent(ctx, e, o)
	if ctx.Err() != nil {
		return nil
	}
	if o.source.explicit || !errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("follow drops of agent %s: %w", shown(o.source.agent), err)
		if errors.Is(err, errStreamEnded) {
			return err
		}
		return withRemedy(err, agentRemedy(err))
	}
	return followKernel(ctx, e, o, " (no agent at "+shown(o.source.agent)+")")
}

// errStreamEnded says that the agent has stopped.
var errStreamEnded = errors.New("the agent has ended the stream")

// followAgent reads the agent's stream until one of the two ends it.
func followAgent(ctx context.Context, e *env, o dropsOptions) error {
	address := strings.TrimSuffix(o.source.agent, "/") + "/api/v1/drops?follow=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return urlCause(err)
	}
	client := *e.client
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		return tlsCause(urlCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	fmt.Fprintf(e.stderr, "source: agent at %s\n", shown(o.source.agent))
	var r correlate.DropsReport
	if getJSON(ctx, e.client, strings.TrimSuffix(address, "?follow=true"), &r) == nil && r.Source == correlate.SourceAgent {
		var groups []correlate.LogGroup
		for _, g := range r.Groups {
			groups = append(groups, correlate.LogGroup{Group: g.Group, Bound: g.Bound, Err: g.Error})
		}
		sayGroups(e.stderr, groups)
	}
	for lines := json.NewDecoder(resp.Body); ; {
		var d correlate.DropEventReport
		if err := lines.Decode(&d); errors.Is(err, io.EOF) {
			return errStreamEnded
		} else if err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		if err := writeDrop(e, &d, o); err != nil {
			return err
		}
	}
}

// followKernel reads groups of NFLOG itself.
func followKernel(ctx context.Context, e *env, o dropsOptions, why string) error {
	c := o.source.direct
	node, err := nodeName(e, c.NodeName)
	if err != nil {
		return err
	}
	c.NodeName = node
	var failed error
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = e.watchDrops(ctx, c, agent.DropWatch{
		Started: func(groups []correlate.LogGroup) {
			fmt.Fprintf(e.stderr, "source: this node's kernel%s\n", why)
			sayGroups(e.stderr, groups)
		},
		Visit: func(d *correlate.DropEventReport) {
			if failed = writeDrop(e, d, o); failed != nil {
				stop() // nobody reads any more
			}
		},
	})
	return errors.Join(err, failed)
}

// sayGroups says which groups are read; where none is, why.
func sayGroups(w io.Writer, groups []correlate.LogGroup) {
	if len(groups) == 0 {
		fmt.Fprintln(w, "no group of NFLOG is read, as no rule logs to one that is free, or none is to be read: no events")
	}
	for _, g := range groups {
		if g.Bound {
			fmt.Fprintf(w, "reading NFLOG group %d\n", g.Group)
		} else {
			fmt.Fprintf(w, "warning: NFLOG group %d is not read: %s\n", g.Group, g.Err)
		}
	}
}

// writeDrop prints one line, for an event or for those that were missed.
func writeDrop(e *env, d *correlate.DropEventReport, o dropsOptions) error {
	if d.Missed > 0 {
		fmt.Fprintf(e.stderr, "warning: %d events came too fast to be read\n", d.Missed)
	}
	if d.Source == "" || !ofNamespace(d, o.namespace) {
		return nil
	}
	line := []byte(dropLine(d, e.now().Location()) + "\n")
	if o.format == formatJSON {
		b, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("format json: %w", err)
		}
		line = append(b, '\n')
	}
	if _, err := e.stdout.Write(line); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
