// SPDX-License-Identifier: Apache-2.0

// Package controllers plays the parts of a cluster's control plane that the
// lab lacks and a DaemonSet needs: the DaemonSet controller with the scheduler
// and the garbage collector for its pods, the publisher of the root CA and the
// maker of default ServiceAccounts. All else of the control plane is real.
package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Namespaces gives each namespace what pods in it need: the ServiceAccount
// "default" and the ConfigMap with the API server's CA.
func Namespaces(ctx context.Context, client kubernetes.Interface, ca []byte) error {
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	for _, ns := range list.Items {
		if ns.DeletionTimestamp != nil {
			continue
		}
		if err := furnish(ctx, client, ns.Name, ca); err != nil {
			return fmt.Errorf("namespace %s: %w", ns.Name, err)
		}
	}
	return nil
}

func furnish(ctx context.Context, client kubernetes.Interface, ns string, ca []byte) error {
	const bundle = "kube-root-ca.crt"
	core := client.CoreV1()
	_, err := core.ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = core.ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = core.ConfigMaps(ns).Get(ctx, bundle, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: bundle}, Data: map[string]string{"ca.crt": string(ca)}}
		_, err = core.ConfigMaps(ns).Create(ctx, cm, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}
