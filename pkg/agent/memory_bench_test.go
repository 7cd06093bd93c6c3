// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/svcscope/svcscope/pkg/internal/kernelrules"
	"github.com/svcscope/svcscope/pkg/internal/kerneltest"
	"github.com/svcscope/svcscope/pkg/netfilter"
)

// BenchmarkAgentMemory runs the program beside the rules of 10,000 Services
// with 30,000 endpoints, without an API, and reports what of it is resident
// after ten samplings, one a second, and with SVCSCOPE_LONG=1 after 180; peak
// is the most that ever was.
func BenchmarkAgentMemory(b *testing.B) {
	samplings := 10
	if os.Getenv("SVCSCOPE_LONG") == "1" {
		samplings = 180
	}
	for _, backend := range []string{"nft", "legacy"} {
		b.Run(backend, func(b *testing.B) {
			kerneltest.RunB(b, func(b *testing.B) {
				m := kernelrules.Many{Family: netfilter.IPv4, Services: 10000}
				kerneltest.Exec(b, string(m.All()), "iptables-"+backend+"-restore")
				kerneltest.Exec(b, "", "mount", "-t", "proc", "proc", "/proc") // of this PID namespace
				program := filepath.Join(b.TempDir(), "svcscope")
				kerneltest.Exec(b, "", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/svcscope/svcscope/cmd/svcscope")
				for b.Loop() {
					rss, peak := residentAfter(b, program, time.Duration(samplings)*time.Second)
					b.ReportMetric(rss, "rss-MiB")
					b.ReportMetric(peak, "peak-MiB")
				}
			})
		})
	}
}

// residentAfter runs an agent and returns its VmRSS and VmHWM in MiB once it
// has sampled every second for d since it was ready.
func residentAfter(b *testing.B, program string, d time.Duration) (rss, peak float64) {
	agent := exec.CommandContext(b.Context(), program, "agent", "--kube=never", "--interval=1s", "--node-name=node-a")
	agent.Stderr = os.Stderr
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if answer, err := http.Get("http://127.0.0.1:10989/readyz"); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			b.Fatal("the agent does not get ready")
		}
	}
	time.Sleep(d)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			rss = kib / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			peak = kib / 1024
		}
	}
	return rss, peak
}
