// SPDX-License-Identifier: Apache-2.0

// Package pods runs the pods that are bound to a node, each exactly as its
// spec says, and reports their status. A field of the spec that it would have
// to ignore keeps the pod from running.
package pods

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/svcscope/svcscope/hack/nodeagent/internal/image"
)

// Config says where pods run.
type Config struct {
	// Client speaks to the API server.
	Client kubernetes.Interface
	// Node is the Node object's name.
	Node string
	// Images are by the name that a pod's spec gives.
	Images map[string]*image.Image
	// Dir is for root file systems, volumes and logs. It is removed at the
	// end.
	Dir string
	// Log is for what happens.
	Log *slog.Logger
}

// Node runs the pods of one node.
type Node struct {
	client    kubernetes.Interface
	name      string
	hostname  string
	addresses []string // the node's, that of the first family first
	images    map[string]*image.Image
	dir       string
	log       *slog.Logger

	mu   sync.Mutex // guards pods
	pods map[types.UID]*pod
}

// NewNode finds the node's addresses and tells the API server on which port
// its kubelet answers.
func NewNode(ctx context.Context, c Config, kubeletPort int) (*Node, error) {
	obj, err := c.Client.CoreV1().Nodes().Get(ctx, c.Node, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	n := &Node{
		client: c.Client, name: c.Node, images: c.Images, dir: c.Dir, log: c.Log, pods: map[types.UID]*pod{},
	}
	for _, a := range obj.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			n.addresses = append(n.addresses, a.Address)
		}
	}
	if len(n.addresses) == 0 {
		return nil, fmt.Errorf("node %s has no InternalIP", c.Node)
	}
	if n.hostname, err = os.Hostname(); err != nil {
		return nil, err
	}
	patch := fmt.Sprintf(`{"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, kubeletPort)
	_, err = c.Client.CoreV1().Nodes().Patch(ctx, c.Node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return n, err
}

// Addresses returns the node's addresses, that of the first family first.
func (n *Node) Addresses() []string { return n.addresses }

// Sync starts pods that are new on the node, stops those that are being
// deleted and kills those that are gone. It does not wait for any.
func (n *Node) Sync(ctx context.Context) error {
	list, err := n.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.name})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	there := map[types.UID]bool{}
	for i := range list.Items {
		obj := &list.Items[i]
		there[obj.UID] = true
		p := n.pods[obj.UID]
		if p == nil {
			p = newPod(n, obj)
			n.pods[obj.UID] = p
			go p.run(context.WithoutCancel(ctx))
		}
		if obj.DeletionTimestamp != nil {
			p.stop(time.Duration(*obj.DeletionGracePeriodSeconds) * time.Second)
		}
	}
	for uid, p := range n.pods {
		select {
		case <-p.done:
			delete(n.pods, uid)
		default:
			if !there[uid] {
				p.stop(0)
			}
		}
	}
	return nil
}

// Stop ends all containers as if their pods were deleted, but leaves the pods
// in the API, and waits.
func (n *Node) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		p.keep.Store(true)
		p.stop(time.Duration(*p.obj.Spec.TerminationGracePeriodSeconds) * time.Second)
	}
	for _, p := range n.pods {
		<-p.done
	}
	return os.RemoveAll(n.dir)
}

// ErrNotFound is returned for a pod or container that does not run here.
var ErrNotFound = errors.New("not found on this node")

// Find returns a container of a pod.
func (n *Node) Find(namespace, name, containerName string) (*Container, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.obj.Namespace != namespace || p.obj.Name != name {
			continue
		}
		for _, c := range p.containers {
			if c.spec.Name == containerName {
				return c, nil
			}
		}
	}
	return nil, fmt.Errorf("container %s of pod %s/%s: %w", containerName, namespace, name, ErrNotFound)
}

// Event tells what happened to an object, in its namespace and in the log.
func Event(ctx context.Context, client kubernetes.Interface, about corev1.ObjectReference, e corev1.Event) error {
	now := metav1.Now()
	e.ObjectMeta = metav1.ObjectMeta{
		Namespace: about.Namespace, Name: about.Name + "." + strings.ToLower(rand.Text()[:16]),
	}
	e.InvolvedObject = about
	e.FirstTimestamp, e.LastTimestamp, e.Count = now, now, 1
	e.Source = corev1.EventSource{Component: "lab-node-agent"}
	e.ReportingController = "lab-node-agent"
	_, err := client.CoreV1().Events(about.Namespace).Create(ctx, &e, metav1.CreateOptions{})
	// Its namespace may be on its way out.
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (n *Node) podDir(uid types.UID) string { return filepath.Join(n.dir, "pods", string(uid)) }
