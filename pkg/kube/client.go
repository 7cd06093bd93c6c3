// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

const (
	protobufType = runtime.ContentTypeProtobuf
	// Some proxies answer for the API server, with a Status in JSON.
	acceptTypes = protobufType + "," + runtime.ContentTypeJSON
)

// networkingV1 is the group of NetworkPolicies, of which only metadata is read: without
// the package of their types.
var networkingV1 = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}

// newScheme knows the kinds that are followed or written and nothing else. AddToScheme of
// the API packages would keep every type of the group in the binary.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion,
		&corev1.Service{}, &corev1.ServiceList{}, &corev1.Node{}, &corev1.NodeList{},
		&corev1.Pod{}, &corev1.PodList{}, &corev1.Event{})
	s.AddKnownTypes(discoveryv1.SchemeGroupVersion,
		&discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{})
	s.AddKnownTypes(metav1.SchemeGroupVersion, &metav1.PartialObjectMetadata{}, &metav1.PartialObjectMetadataList{})
	for _, gv := range []schema.GroupVersion{corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, networkingV1} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// clients are one REST client for each API group, over one connection pool.
type clients struct {
	core       rest.Interface
	discovery  rest.Interface
	networking rest.Interface
	events     rest.Interface // of core; its requests do not hold up the watches'
	http       *http.Client
}

func newClients(cfg *rest.Config, userAgent string) (*clients, error) {
	base := rest.CopyConfig(cfg)
	base.ContentType, base.AcceptContentTypes = protobufType, acceptTypes
	base.NegotiatedSerializer = serializer.NewCodecFactory(newScheme()).WithoutConversion()
	base.WarningHandler = rest.NoWarnings{}
	base.Timeout = 0 // it would end watches
	if userAgent != "" {
		base.UserAgent = userAgent
	}
	// Three watches, or five, and Events apart: more requests than this are a fault.
	base.QPS, base.Burst, base.RateLimiter = 5, 10, nil
	base.Wrap(pinged)
	hc, err := rest.HTTPClientFor(base)
	if err != nil {
		return nil, fmt.Errorf("build API client: %w", err)
	}
	c := &clients{http: hc}
	if c.core, err = groupClient(base, hc, corev1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	if c.events, err = groupClient(base, hc, corev1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	if c.discovery, err = groupClient(base, hc, discoveryv1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	if c.networking, err = groupClient(base, hc, networkingV1); err != nil {
		return nil, err
	}
	return c, nil
}

func groupClient(base *rest.Config, hc *http.Client, gv schema.GroupVersion) (rest.Interface, error) {
	cfg := rest.CopyConfig(base)
	cfg.GroupVersion, cfg.APIPath = &gv, "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	c, err := rest.RESTClientForConfigAndClient(cfg, hc)
	if err != nil {
		return nil, fmt.Errorf("build API client for %s: %w", gv, err)
	}
	return c, nil
}

func (c *clients) close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }
