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
	"sync"
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
	tellAgentsSources(ctx, e, o, strings.TrimSuffix(address, "?follow=true"))
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

// tellAgentsSources says where the events of an agent come from, and what they lack.
func tellAgentsSources(ctx context.Context, e *env, o dropsOptions, address string) {
	var r correlate.DropsReport
	err := getJSON(ctx, e.client, address, &r)
	if err == nil && r.Source != correlate.SourceAgent {
		err = errors.New("decode answer: not a report of drops")
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "warning: where events come from is not known: %v\n", err)
		return
	}
	t := eventTeller{w: e.stderr, o: o.source, zone: e.now().Location()}
	t.tell(&r)
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
	begin := sync.OnceFunc(func() { fmt.Fprintf(e.stderr, "source: this node's kernel%s\n", why) })
	t := eventTeller{w: e.stderr, o: o.source, zone: e.now().Location()}
	err = e.watchDrops(ctx, c, agent.DropWatch{
		Sources: func(r *correlate.DropsReport) {
			begin()
			t.tell(r)
		},
		Visit: func(d *correlate.DropEventReport) {
			if failed = writeDrop(e, d, o); failed != nil {
				stop() // nobody reads any more
			}
		},
	})
	return errors.Join(err, failed)
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
