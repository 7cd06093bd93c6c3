// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

// object is any object of the API.
type object interface {
	runtime.Object
	metav1.Object
}

// newScheme returns the kinds that a manifest may have.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, rbacv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	return s, nil
}

// decode returns the objects in YAML documents. A field that the kind does not
// have, or that is there twice, is an error.
func decode(text string) ([]object, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var out []object
	for _, doc := range documents(text) {
		o, _, err := decoder.Decode([]byte(doc), nil, nil)
		if err != nil {
			return nil, fmt.Errorf("decode: %w in\n%s", err, doc)
		}
		typed, ok := o.(object)
		if !ok {
			return nil, fmt.Errorf("decode: %T is no object", o)
		}
		out = append(out, typed)
	}
	return out, nil
}

// documents splits text at the lines "---" and leaves out documents without
// content.
func documents(text string) []string {
	var out []string
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		var content any
		if err := yaml.Unmarshal([]byte(doc), &content); err == nil && content == nil {
			continue
		}
		out = append(out, doc)
	}
	return out
}

// id names an object: kind, namespace and name.
func id(o object) string {
	return o.GetObjectKind().GroupVersionKind().Kind + " " + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
}

// byID returns objects by their id.
func byID(objects []object) (map[string]object, error) {
	out := map[string]object{}
	for _, o := range objects {
		if _, ok := out[id(o)]; ok {
			return nil, fmt.Errorf("two objects are %s", id(o))
		}
		out[id(o)] = o
	}
	return out, nil
}
