// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/svcscope/svcscope/hack/lab/internal/topology"
)

const server = "https://" + topology.Control4 + ":6443"

// etcdAddress is where etcd listens in its namespace.
const etcdAddress = "127.0.0.1:2379"

// KubeletClient is the name in the certificate with which the API server
// calls a kubelet.
const KubeletClient = "kube-apiserver-kubelet-client"

// startTimeout is for one component: some seconds on a machine at rest.
const startTimeout = 3 * time.Minute

// Plane starts the control plane and kube-proxy.
type Plane struct {
	// Dir is for keys and etcd's data: private to the lab, in memory.
	Dir string
	// Kubeconfig is where the administrator's is written.
	Kubeconfig string
	// AuditLog is where the API server writes what ServiceAccounts ask of
	// it, a JSON object a line.
	AuditLog string
	// Binaries are paths by program.
	Binaries map[string]string
	// ProxyMode is kube-proxy's, and ProxyArgs are added to its flags.
	ProxyMode string
	ProxyArgs []string
	// APIArgs are added to kube-apiserver's flags.
	APIArgs []string
	// Fillers is the number of Services that are there before the API
	// server starts, see Filler.
	Fillers int
	// Start starts a program in a namespace and returns a channel that is
	// closed when it ends.
	Start func(netns string, argv []string) (<-chan struct{}, error)
	// Step is called before each wait.
	Step func(string)
}

// Up starts everything and returns when kube-proxy has synchronised once.
func (p Plane) Up(ctx context.Context, node topology.Node) (*Client, error) {
	proxyConfig, err := p.keys()
	if err != nil {
		return nil, err
	}
	client, err := NewClient(p.Kubeconfig)
	if err != nil {
		return nil, err
	}
	etcdEnd, err := p.Start("control", p.etcd())
	if err != nil {
		return nil, err
	}
	if p.Fillers > 0 {
		p.Step(fmt.Sprintf("making %d Services", p.Fillers))
		try := func(ctx context.Context) error { return fill(ctx, "control", p.Fillers) }
		if err := Poll(ctx, startTimeout, try, map[string]<-chan struct{}{"etcd": etcdEnd}); err != nil {
			return nil, err
		}
	}
	apiEnd, err := p.Start("control", p.apiserver())
	if err != nil {
		return nil, err
	}
	p.Step("waiting for the API server")
	err = Poll(ctx, startTimeout, client.Ready, map[string]<-chan struct{}{"etcd": etcdEnd, "kube-apiserver": apiEnd})
	if err != nil {
		return nil, fmt.Errorf("wait for the API server: %w", err)
	}
	if err := registerNode(ctx, client, node); err != nil {
		return nil, err
	}
	if p.Fillers > 0 {
		if err := ensureNamespace(ctx, client, FillerNamespace); err != nil {
			return nil, err
		}
	}
	if err := exposeAPI(ctx, client); err != nil {
		return nil, err
	}
	return client, p.proxy(ctx, node, proxyConfig)
}

func (p Plane) proxy(ctx context.Context, node topology.Node, kubeconfig string) error {
	argv := []string{
		p.Binaries["kube-proxy"], "--kubeconfig=" + kubeconfig, "--hostname-override=" + node.Name(),
		"--proxy-mode=" + p.ProxyMode, "--cluster-cidr=" + topology.PodCIDR4 + "," + topology.PodCIDR6,
		// nf_conntrack_max belongs to the host.
		"--conntrack-max-per-core=0", "--oom-score-adj=0", "--healthz-bind-address=0.0.0.0:10256",
		"--metrics-bind-address=0.0.0.0:10249", "--v=2",
	}
	end, err := p.Start(node.Name(), append(argv, p.ProxyArgs...))
	if err != nil {
		return err
	}
	p.Step("waiting for kube-proxy's first sync")
	// A first load takes 20 ms a Service where a listener has to be told too.
	timeout := startTimeout + time.Duration(p.Fillers)*50*time.Millisecond
	err = Poll(ctx, timeout, func(ctx context.Context) error {
		return synced(ctx, "http://"+node.IPv4()+":10249/metrics")
	}, map[string]<-chan struct{}{"kube-proxy": end})
	if err != nil {
		return fmt.Errorf("wait for kube-proxy's first sync: %w", err)
	}
	return nil
}

func (p Plane) etcd() []string {
	return []string{
		p.Binaries["etcd"], "--data-dir=" + p.Dir + "/etcd", "--unsafe-no-fsync",
		"--listen-client-urls=http://" + etcdAddress, "--advertise-client-urls=http://" + etcdAddress,
		"--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn",
	}
}

func (p Plane) apiserver() []string {
	argv := []string{
		p.Binaries["kube-apiserver"],
		"--etcd-servers=http://" + etcdAddress, "--bind-address=" + topology.Control4,
		// The reconciler would publish addresses that it finds itself.
		"--advertise-address=" + topology.Control4, "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + topology.ServiceCIDR4 + "," + topology.ServiceCIDR6,
		"--authorization-mode=RBAC", "--client-ca-file=" + p.Dir + "/ca.crt",
		"--tls-cert-file=" + p.Dir + "/apiserver.crt", "--tls-private-key-file=" + p.Dir + "/apiserver.key",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p.Dir + "/sa.key", "--service-account-signing-key-file=" + p.Dir + "/sa.key",
		"--cert-dir=" + p.Dir, "--profiling=false",
		// Without a --kubelet-certificate-authority the certificate of
		// whoever plays the kubelet is not verified.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + p.Dir + "/kubelet-client.crt", "--kubelet-client-key=" + p.Dir + "/kubelet-client.key",
		"--audit-policy-file=" + p.Dir + "/audit.json", "--audit-log-path=" + p.AuditLog,
	}
	return append(argv, p.APIArgs...)
}

// auditPolicy records every request of a ServiceAccount, and no other.
const auditPolicy = `{
	"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
	"rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]
}
`

// keys writes all keys and kubeconfigs and returns the path of kube-proxy's.
func (p Plane) keys() (string, error) {
	ca, err := newAuthority(p.Dir)
	if err != nil {
		return "", err
	}
	ips := []net.IP{net.ParseIP(topology.Control4), net.ParseIP(topology.Control6), net.ParseIP("10.96.0.1")}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	api, err := ca.issue(pkix.Name{CommonName: "kube-apiserver"}, names, ips)
	if err != nil {
		return "", err
	}
	sa, err := ca.issue(pkix.Name{CommonName: "service-accounts"}, nil, nil)
	if err != nil {
		return "", err
	}
	kubelet, err := ca.issue(pkix.Name{CommonName: KubeletClient, Organization: []string{"system:masters"}}, nil, nil)
	if err != nil {
		return "", err
	}
	for name, b := range map[string][]byte{
		"apiserver.crt": api.cert, "apiserver.key": api.key, "sa.key": sa.key, "audit.json": []byte(auditPolicy),
		"kubelet-client.crt": kubelet.cert, "kubelet-client.key": kubelet.key,
	} {
		if err := ca.write(name, b); err != nil {
			return "", err
		}
	}
	admin := pkix.Name{CommonName: "lab-admin", Organization: []string{"system:masters"}}
	if err := p.user(ca, admin, p.Kubeconfig); err != nil {
		return "", err
	}
	path := ca.path("kube-proxy.kubeconfig")
	return path, p.user(ca, pkix.Name{CommonName: "system:kube-proxy"}, path)
}

func (p Plane) user(ca *authority, subject pkix.Name, path string) error {
	kp, err := ca.issue(subject, nil, nil)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(ca.kubeconfig(server, subject.CommonName, kp), "", "  ")
	if err != nil {
		return fmt.Errorf("kubeconfig of %s: %w", subject.CommonName, err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("kubeconfig of %s: %w", subject.CommonName, err)
	}
	return nil
}

// Poll calls try until it succeeds, the time is over, or one of the named
// processes has ended.
func Poll(ctx context.Context, timeout time.Duration, try func(context.Context) error, ends map[string]<-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		// The attempt that the timeout cuts off says nothing of the cause.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		var ended []string
		for name, end := range ends {
			select {
			case <-end:
				ended = append(ended, name)
			default:
			}
		}
		if len(ended) > 0 {
			return fmt.Errorf("%s ended", strings.Join(ended, ", "))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", timeout, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
