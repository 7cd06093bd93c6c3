// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/container"
)

// Delays between a container's restarts: the first is at once.
const (
	firstBackoff = 10 * time.Second
	lastBackoff  = 5 * time.Minute
	resetBackoff = 10 * time.Minute // of running takes the delay back
)

// Container is one of a pod that runs here.
type Container struct {
	pod  *pod
	spec *corev1.Container

	// The pod's mu guards these.
	status      corev1.ContainerStatus
	everStarted bool
	running     *container.Running // nil while it does not run
	process     container.Process  // what it was started with
	log         string             // the present log's path
	previous    string             // the log of the start before
}

func newContainer(p *pod, spec *corev1.Container) *Container {
	no := false
	return &Container{pod: p, spec: spec, status: corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, Started: &no,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
	}}
}

// waiting says why the container does not run.
func (c *Container) waiting(reason, message string) {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	no := false
	c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	c.status.Ready, c.status.Started = false, &no
}

// run starts the container, and again whenever it ends, until the pod stops.
// once is Container.once.
func (c *Container) run(ctx context.Context, once func(context.Context) error) {
	var delay time.Duration
	for {
		began := time.Now()
		err := once(ctx)
		if c.isStopping() {
			return
		}
		if time.Since(began) > resetBackoff {
			delay = 0
		}
		if err != nil || delay > 0 {
			reason, message := "CrashLoopBackOff", fmt.Sprintf("back-off %v restarting failed container", max(delay, firstBackoff))
			if err != nil {
				reason, message = "CreateContainerError", err.Error()
				c.pod.event(ctx, corev1.EventTypeWarning, "Failed", message)
			}
			c.waiting(reason, message)
		}
		c.pod.publish(ctx)
		select {
		case <-c.pod.stopping:
			return
		case <-time.After(delay):
		}
		delay = min(max(2*delay, firstBackoff), lastBackoff)
		if err == nil {
			c.pod.mu.Lock()
			c.status.RestartCount++
			c.pod.mu.Unlock()
		}
	}
}

func (c *Container) isStopping() bool {
	select {
	case <-c.pod.stopping:
		return true
	default:
		return false
	}
}

// once runs the container from start to end. An error means that it did not
// start.
func (c *Container) once(ctx context.Context) error {
	spec, err := c.build(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(spec.Rootfs)
	log, err := c.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	r, err := container.Start(spec, container.Streams{Out: log.stream("stdout"), Err: log.stream("stderr")})
	if err != nil {
		return err
	}
	started := c.begin(r, spec)
	c.pod.event(ctx, corev1.EventTypeNormal, "Started", "Started container "+c.spec.Name)
	c.pod.publish(ctx)
	unhealthy := make(chan string, 1)
	probing, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	probes.Go(func() { c.watch(probing, unhealthy) })
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
			return
		case <-c.pod.stopping:
			c.kill(r, ended, c.pod.grace)
		case why := <-unhealthy:
			c.pod.event(ctx, corev1.EventTypeWarning, "Killing", fmt.Sprintf("Container %s failed its probe, will be restarted: %s", c.spec.Name, why))
			c.kill(r, ended, time.Duration(*c.pod.obj.Spec.TerminationGracePeriodSeconds)*time.Second)
		}
	}()
	code, signal, err := r.Wait()
	close(ended)
	cancel()
	probes.Wait()
	if err != nil {
		c.pod.log.Error("wait for container", "err", err)
	}
	c.end(ctx, exit{code: code, signal: signal, started: started})
	return nil
}

// kill sends SIGTERM and, after the grace period, SIGKILL.
func (c *Container) kill(r *container.Running, ended <-chan struct{}, grace time.Duration) {
	if grace > 0 {
		if err := r.Signal(syscall.SIGTERM); err != nil {
			c.pod.log.Error("SIGTERM", "err", err)
		}
		select {
		case <-ended:
			return
		case <-time.After(grace):
			c.pod.log.Warn("the grace period is over", "container", c.spec.Name)
		}
	}
	if err := r.Signal(syscall.SIGKILL); err != nil {
		c.pod.log.Error("SIGKILL", "err", err)
	}
}

func (c *Container) begin(r *container.Running, spec *container.Spec) metav1.Time {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	now := metav1.Now().Rfc3339Copy()
	c.running, c.process, c.everStarted = r, spec.Process, true
	c.status.ContainerID = "nodeagent://" + filepath.Base(spec.Rootfs)
	started := c.spec.StartupProbe == nil
	c.status.Started = &started
	c.status.Ready = started && c.spec.ReadinessProbe == nil
	c.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	return now
}

// exit is how a container ended.
type exit struct {
	code, signal int
	started      metav1.Time
}

func (c *Container) end(ctx context.Context, e exit) {
	message, err := os.ReadFile(c.pod.terminationLog(c.spec))
	if err != nil {
		c.pod.log.Error("termination message", "err", err)
	}
	c.pod.mu.Lock()
	if len(message) == 0 && e.code != 0 && c.spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		message = tail(c.log, 2048)
	}
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(e.code), Reason: "Error", StartedAt: e.started, FinishedAt: metav1.Now().Rfc3339Copy(),
		Message: string(message[:min(len(message), 4096)]), ContainerID: c.status.ContainerID,
	}
	if e.code == 0 {
		t.Reason = "Completed"
	}
	c.running = nil
	no := false
	c.status.Ready, c.status.Started = false, &no
	c.status.State = corev1.ContainerState{Terminated: t}
	c.status.LastTerminationState = corev1.ContainerState{Terminated: t}
	c.pod.mu.Unlock()
	c.pod.log.Info("container ended", "container", c.spec.Name, "code", e.code, "signal", e.signal)
	c.pod.publish(ctx)
}

// watch runs the probes. The startup probe comes before the others.
func (c *Container) watch(ctx context.Context, unhealthy chan<- string) {
	fail := func(kind string) func(bool, string) {
		return func(ok bool, why string) {
			if ok {
				return
			}
			select {
			case unhealthy <- kind + " probe: " + why:
			default:
			}
		}
	}
	if s := c.spec.StartupProbe; s != nil {
		until, started := context.WithCancel(ctx)
		c.pod.probe(until, c.spec, s, func(ok bool, why string) {
			if ok {
				started()
			}
			fail("startup")(ok, why)
		})
		started()
		if ctx.Err() != nil {
			return
		}
		c.set(ctx, func() { yes := true; c.status.Started, c.status.Ready = &yes, c.spec.ReadinessProbe == nil })
	}
	var all sync.WaitGroup
	if l := c.spec.LivenessProbe; l != nil {
		all.Go(func() { c.pod.probe(ctx, c.spec, l, fail("liveness")) })
	}
	if r := c.spec.ReadinessProbe; r != nil {
		all.Go(func() {
			c.pod.probe(ctx, c.spec, r, func(ok bool, why string) {
				c.set(ctx, func() {
					if c.status.Ready && !ok {
						c.pod.log.Warn("not ready", "container", c.spec.Name, "why", why)
					}
					c.status.Ready = ok
				})
			})
		})
	}
	all.Wait()
}

func (c *Container) set(ctx context.Context, change func()) {
	c.pod.mu.Lock()
	change()
	c.pod.mu.Unlock()
	c.pod.publish(ctx)
}

// Exec runs a command in the container, with the container's user,
// capabilities, environment and seccomp filter. The exit code of one that a
// signal ended is 128 and the signal's number.
func (c *Container) Exec(ctx context.Context, argv []string, std container.Streams) (int, error) {
	c.pod.mu.Lock()
	r, p := c.running, c.process
	c.pod.mu.Unlock()
	if r == nil {
		return 0, fmt.Errorf("container %s does not run", c.spec.Name)
	}
	p.Args = argv
	in := std.In
	std.In = nil
	cmd, err := c.exec(r, &p, std, in)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	code, _, err := container.ExitOf(cmd.Wait())
	return code, err
}

// exec starts the command and feeds its standard input from a goroutine that
// nobody waits for: a caller may keep that open beyond the command's end.
func (c *Container) exec(r *container.Running, p *container.Process, std container.Streams, in io.Reader) (*exec.Cmd, error) {
	if in == nil {
		return r.Exec(p, std)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer pr.Close()
	std.In = pr
	cmd, err := r.Exec(p, std)
	if err != nil {
		return nil, errors.Join(err, pw.Close())
	}
	go func() {
		_, _ = io.Copy(pw, in) // the command may end first
		pw.Close()
	}()
	return cmd, nil
}

func (p *pod) terminationLog(c *corev1.Container) string {
	return filepath.Join(p.dir, "termination", c.Name)
}

// newID returns a name for a container's root file system.
func newID() string { return strings.ToLower(rand.Text()) }
