// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// environment returns the variables that the spec gives a container: those of
// Services first, then envFrom, then env, which may refer to all before it.
func (p *pod) environment(ctx context.Context, c *corev1.Container) (*vars, error) {
	out := &vars{}
	services, err := p.node.services(ctx, p.obj)
	if err != nil {
		return nil, err
	}
	out.setAll(services)
	for _, from := range c.EnvFrom {
		m, err := p.envFrom(ctx, from)
		if err != nil {
			return nil, err
		}
		out.setAll(m)
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			out.set(e.Name, expand(e.Value, out.value))
			continue
		}
		v, ok, err := p.valueFrom(ctx, c, e.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", e.Name, err)
		}
		if ok {
			out.set(e.Name, v)
		}
	}
	return out, nil
}

// onto returns the whole environment: what runtimes and the image set, where
// the spec does not.
func (v *vars) onto(image []string, hostname string) []string {
	out := &vars{}
	out.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	out.set("HOSTNAME", hostname)
	out.set("HOME", "/")
	for _, kv := range image {
		name, value, _ := strings.Cut(kv, "=")
		out.set(name, value)
	}
	for _, n := range v.order {
		out.set(n, v.value[n])
	}
	return out.list()
}

func (p *pod) envFrom(ctx context.Context, from corev1.EnvFromSource) (map[string]string, error) {
	var data map[string][]byte
	var err error
	switch {
	case from.ConfigMapRef != nil:
		data, err = p.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		data, err = p.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
	}
	out := map[string]string{}
	for k, v := range data {
		out[from.Prefix+k] = string(v)
	}
	return out, err
}

// valueFrom returns a variable's value; false where an optional source is
// missing.
func (p *pod) valueFrom(ctx context.Context, c *corev1.Container, s *corev1.EnvVarSource) (string, bool, error) {
	key := func(data map[string][]byte, err error, key string, optional *bool) (string, bool, error) {
		if err != nil {
			return "", false, err
		}
		v, ok := data[key]
		if !ok && (optional == nil || !*optional) {
			return "", false, fmt.Errorf("no key %q", key)
		}
		return string(v), ok, nil
	}
	switch {
	case s.FieldRef != nil:
		v, err := p.field(s.FieldRef.FieldPath)
		return v, true, err
	case s.ResourceFieldRef != nil:
		v, err := resourceField(c, s.ResourceFieldRef)
		return v, true, err
	case s.ConfigMapKeyRef != nil:
		r := s.ConfigMapKeyRef
		data, err := p.configMap(ctx, r.Name, r.Optional)
		return key(data, err, r.Key, r.Optional)
	case s.SecretKeyRef != nil:
		r := s.SecretKeyRef
		data, err := p.secret(ctx, r.Name, r.Optional)
		return key(data, err, r.Key, r.Optional)
	}
	return "", false, errors.New("no source")
}

func (p *pod) configMap(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	cm, err := p.node.client.CoreV1().ConfigMaps(p.obj.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for k, v := range cm.Data {
		out[k] = []byte(v)
	}
	maps.Copy(out, cm.BinaryData)
	return out, nil
}

func (p *pod) secret(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	s, err := p.node.client.CoreV1().Secrets(p.obj.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.Data, nil
}

// field is a value of the downward API.
func (p *pod) field(path string) (string, error) {
	o := p.obj
	if what, key, ok := strings.Cut(path, "['"); ok {
		key = strings.TrimSuffix(key, "']")
		switch what {
		case "metadata.labels":
			return o.Labels[key], nil
		case "metadata.annotations":
			return o.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return o.Name, nil
	case "metadata.namespace":
		return o.Namespace, nil
	case "metadata.uid":
		return string(o.UID), nil
	case "metadata.labels":
		return pairs(o.Labels), nil
	case "metadata.annotations":
		return pairs(o.Annotations), nil
	case "spec.nodeName":
		return o.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return o.Spec.ServiceAccountName, nil
	// With hostNetwork the pod's addresses are the node's.
	case "status.hostIP", "status.podIP":
		return p.node.addresses[0], nil
	case "status.hostIPs", "status.podIPs":
		return strings.Join(p.node.addresses, ","), nil
	}
	return "", fmt.Errorf("fieldPath %q is not supported", path)
}

func pairs(m map[string]string) string {
	v := &vars{}
	v.setAll(m)
	var out []string
	for _, k := range v.order {
		out = append(out, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(out, "\n")
}

// resourceField is a container's limit or request in units of the divisor,
// rounded up.
func resourceField(c *corev1.Container, r *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(r.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	q, ok := list[corev1.ResourceName(name)]
	if !ok {
		return "", fmt.Errorf("resource %s is not set, and the lab's node has no allocatable to take instead", r.Resource)
	}
	divisor := r.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(int64(math.Ceil(float64(q.MilliValue())/float64(divisor.MilliValue()))), 10), nil
	}
	return strconv.FormatInt(int64(math.Ceil(float64(q.Value())/float64(divisor.Value()))), 10), nil
}

// services returns the variables that tell of Services: always the API's own,
// and those of the pod's namespace unless it wants none.
func (n *Node) services(ctx context.Context, obj *corev1.Pod) (map[string]string, error) {
	out := map[string]string{}
	api, err := n.client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	list := []corev1.Service{}
	if obj.Spec.EnableServiceLinks == nil || *obj.Spec.EnableServiceLinks {
		l, err := n.client.CoreV1().Services(obj.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		list = l.Items
	}
	for _, s := range append(list, *api) {
		serviceVars(&s, out)
	}
	return out, nil
}

func serviceVars(s *corev1.Service, out map[string]string) {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	name := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
	prefix := name(s.Name)
	out[prefix+"_SERVICE_HOST"] = ip
	out[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port, proto := strconv.Itoa(int(p.Port)), string(p.Protocol)
		if p.Name != "" {
			out[prefix+"_SERVICE_PORT_"+name(p.Name)] = port
		}
		url := strings.ToLower(proto) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			out[prefix+"_PORT"] = url
		}
		one := prefix + "_PORT_" + port + "_" + proto
		out[one], out[one+"_PROTO"], out[one+"_PORT"], out[one+"_ADDR"] = url, strings.ToLower(proto), port, ip
	}
}
