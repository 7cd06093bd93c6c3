// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The objects that the tests use.

func apiService(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{"note": "kept nowhere"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

func apiSlice(namespace, svc, suffix string, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: svc + "-" + suffix,
			Labels: map[string]string{discoveryv1.LabelServiceName: svc},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{
			Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080)),
		}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a}, NodeName: new("node-1"), Zone: new("zone-a"),
		})
	}
	return s
}

func apiNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeHostName, Address: name},
		}},
	}
}

func sorted[T cmp.Ordered](s []T) []T { return slices.Sorted(slices.Values(s)) }

func resourceOf(o runtime.Object) string {
	switch o.(type) {
	case *corev1.Service:
		return "services"
	case *discoveryv1.EndpointSlice:
		return "endpointslices"
	case *corev1.Node:
		return "nodes"
	case *corev1.Pod:
		return "pods"
	case *metav1.PartialObjectMetadata:
		return "networkpolicies"
	}
	panic(fmt.Sprintf("unknown %T", o))
}

func statusObject(code int) *metav1.Status {
	reasons := map[int]metav1.StatusReason{
		401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 410: metav1.StatusReasonExpired,
		422: metav1.StatusReasonInvalid, 429: metav1.StatusReasonTooManyRequests, 503: metav1.StatusReasonServiceUnavailable,
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: int32(code), Reason: reasons[code],
		Message: strings.ToLower(string(reasons[code])) + " by the fake",
	}
}

func bookmark(resource string, version int) runtime.Object {
	meta := metav1.ObjectMeta{
		ResourceVersion: strconv.Itoa(version),
		Annotations:     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}
	switch resource {
	case "services":
		return &corev1.Service{ObjectMeta: meta}
	case "nodes":
		return &corev1.Node{ObjectMeta: meta}
	case "pods":
		return &corev1.Pod{ObjectMeta: meta}
	case "networkpolicies":
		return &metav1.PartialObjectMetadata{ObjectMeta: meta}
	}
	return &discoveryv1.EndpointSlice{ObjectMeta: meta}
}
