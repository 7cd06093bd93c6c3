// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe runs a probe until ctx ends and calls report with each outcome that
// reached its threshold; the first success or failure counts from the start.
func (p *pod) probe(ctx context.Context, c *corev1.Container, pr *corev1.Probe, report outcome) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Duration(pr.InitialDelaySeconds) * time.Second):
	}
	looks{p, c, pr, time.Duration(pr.PeriodSeconds) * time.Second}.run(ctx, report)
}

// outcome is told of a probe that reached a threshold.
type outcome = func(ok bool, why string)

// looks is one container's probe.
type looks struct {
	pod       *pod
	container *corev1.Container
	probe     *corev1.Probe
	period    time.Duration
}

// run looks until ctx ends.
func (l looks) run(ctx context.Context, report outcome) {
	tick := time.NewTicker(l.period)
	defer tick.Stop()
	good, bad := int32(0), int32(0)
	for {
		one, cancel := context.WithTimeout(ctx, time.Duration(l.probe.TimeoutSeconds)*time.Second)
		err := l.pod.try(one, l.container, l.probe)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			good, bad = good+1, 0
			if good >= l.probe.SuccessThreshold {
				report(true, "")
			}
		} else {
			good, bad = 0, bad+1
			if bad >= l.probe.FailureThreshold {
				report(false, err.Error())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// try does a probe once. The agent lives in the node's network namespace, as
// a kubelet does.
func (p *pod) try(ctx context.Context, c *corev1.Container, pr *corev1.Probe) error {
	if t := pr.TCPSocket; t != nil {
		addr, err := p.target(c, t.Host, t.Port)
		if err != nil {
			return err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	h := pr.HTTPGet
	addr, err := p.target(c, h.Host, h.Port)
	if err != nil {
		return err
	}
	url := strings.ToLower(string(h.Scheme)) + "://" + addr + "/" + strings.TrimPrefix(h.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/1.37")
	for _, x := range h.HTTPHeaders {
		if strings.EqualFold(x.Name, "Host") {
			req.Host = x.Value
		}
		req.Header.Set(x.Name, x.Value)
	}
	// A kubelet does not verify the certificate either.
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as the API says
		},
		// A redirect is a success; a kubelet follows those to the same host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: statuscode: %d", url, resp.StatusCode)
	}
	return nil
}

func (p *pod) target(c *corev1.Container, host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = p.node.addresses[0]
	}
	if port.Type == intstr.Int {
		return net.JoinHostPort(host, strconv.Itoa(port.IntValue())), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == port.StrVal {
			return net.JoinHostPort(host, strconv.Itoa(int(cp.ContainerPort))), nil
		}
	}
	return "", fmt.Errorf("no port is named %q", port.StrVal)
}
