// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/svcscope/svcscope/pkg/drift"
)

// KubeMode says whether the API is used: the flag --kube.
type KubeMode string

// The modes. In all of them the agent works on while the API is away.
const (
	KubeAuto   KubeMode = "auto"   // where a kubeconfig or a service account is found
	KubeAlways KubeMode = "always" // it is an error that neither is
	KubeNever  KubeMode = "never"  // names come from the rules' comments
)

// APIExposure says who may read /api/v1: the flag --web.api.
type APIExposure string

// The exposures.
const (
	APILoopback APIExposure = "loopback" // clients whose address is a loopback one
	APIAll      APIExposure = "all"
	APINever    APIExposure = "never"
)

// Config is what an agent needs to know. Start from DefaultConfig.
type Config struct {
	// ListenAddresses are host:port of /metrics, /api/v1 and the page:
	// --web.listen-address, repeatable.
	ListenAddresses []string
	// HealthAddress is host:port of /healthz and /readyz, without
	// authentication: --web.health-address. Empty serves neither.
	HealthAddress string
	// WebConfigFile configures TLS and authentication of ListenAddresses, in
	// the format of exporter-toolkit: --web.config.file.
	WebConfigFile string
	API           APIExposure // --web.api

	Kube        KubeMode      // --kube
	Kubeconfig  string        // --kubeconfig; empty: the pod's service account
	NodeName    string        // --node-name
	StartJitter time.Duration // --kube.start-jitter
	UserAgent   string        // towards the API; svcscope/<version>

	// What else is asked of the API: --kube.pods, the pods of this node; --kube.policies,
	// the names of all NetworkPolicies; --kube.events, to write Events of pods that lose
	// packets to policies.
	KubePods, KubePolicies, KubeEvents bool

	Interval time.Duration // --interval
	// ConntrackInterval is --conntrack.interval: how often the entries of the
	// table are read. 0 never reads them.
	ConntrackInterval time.Duration
	Endpoints         bool // --metrics.endpoints
	Policies          bool // --metrics.policies
	MaxServices       int  // --metrics.max-services

	// MaxRules is --exact.max-rules: with at most so many nf_tables rules and
	// set elements the agent listens to changes. 0 never listens.
	MaxRules int
	// LockFile is --legacy.lock-file: the lock of iptables-legacy, watched
	// where it is there. Empty: not watched.
	LockFile string

	// NFLOGGroup is --nflog.group: "auto", "none", or numbers with commas.
	NFLOGGroup string
	// AnonymizeDrops is --drops.anonymize: of addresses in events that are of no pod, node
	// or Service only the network is told.
	AnonymizeDrops bool

	// Tap is --tap: an nf_tables table of the agent's own counts what is sent to
	// Services, and refused.
	Tap bool

	// DriftGrace is --drift.grace: how long kube-proxy has at least to write what the API
	// has changed.
	DriftGrace time.Duration

	// Logger gets what changes; nil discards it.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults of the agent's flags. NodeName is left
// empty.
func DefaultConfig() Config {
	return Config{
		ListenAddresses: []string{"127.0.0.1:10988"},
		HealthAddress:   "127.0.0.1:10989",
		API:             APILoopback,
		Kube:            KubeAuto,
		StartJitter:     30 * time.Second,
		Interval:        15 * time.Second,

		ConntrackInterval: 30 * time.Second,
		MaxServices:       500,
		MaxRules:          2500,
		LockFile:          "/run/xtables.lock",
		NFLOGGroup:        groupsAuto,
		DriftGrace:        drift.DefaultGrace,
	}
}

// Validate returns every mistake in the configuration, each naming its flag.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.ListenAddresses) == 0 {
		wrong("--web.listen-address: at least one is needed")
	}
	for _, a := range c.ListenAddresses {
		if !validAddress(a) {
			wrong("--web.listen-address %q: want host:port", a)
		}
	}
	if c.HealthAddress != "" && !validAddress(c.HealthAddress) {
		wrong("--web.health-address %q: want host:port", c.HealthAddress)
	}
	if !slices.Contains([]APIExposure{APILoopback, APIAll, APINever}, c.API) {
		wrong("--web.api %q: want loopback, all or never", c.API)
	}
	if err := c.validateSampling(); err != nil {
		errs = append(errs, err)
	}
	if c.Interval < time.Second {
		wrong("--interval %v: want 1s or more", c.Interval)
	}
	if c.ConntrackInterval != 0 && c.ConntrackInterval < time.Second {
		wrong("--conntrack.interval %v: want 1s or more, or 0 for never", c.ConntrackInterval)
	}
	if c.MaxServices < 1 {
		wrong("--metrics.max-services %d: want 1 or more", c.MaxServices)
	}
	if c.MaxRules < 0 {
		wrong("--exact.max-rules %d: want 0 or more", c.MaxRules)
	}
	if c.DriftGrace < time.Second {
		wrong("--drift.grace %v: want 1s or more", c.DriftGrace)
	}
	if _, err := parseGroups(c.NFLOGGroup); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// validAddress reports whether a is host:port, where the host of all addresses
// is empty. "[]" is one that somebody wanted to put in and that was empty: it
// must not become all addresses.
func validAddress(a string) bool {
	_, _, err := net.SplitHostPort(a)
	return err == nil && !strings.HasPrefix(a, "[]")
}

// validateSampling checks what ReadOnce needs as well.
func (c *Config) validateSampling() error {
	var errs []error
	if !slices.Contains([]KubeMode{KubeAuto, KubeAlways, KubeNever}, c.Kube) {
		errs = append(errs, fmt.Errorf("--kube %q: want auto, always or never", c.Kube))
	}
	if c.StartJitter < 0 {
		errs = append(errs, fmt.Errorf("--kube.start-jitter %v: want 0 or more", c.StartJitter))
	}
	if err := c.validateKube(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
