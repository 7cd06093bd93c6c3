// SPDX-License-Identifier: Apache-2.0

// Package service holds Services and their endpoints as values: what the API
// says, trimmed to what svcscope needs, with look-ups by name, by address and
// port, and by node port. It imports nothing of Kubernetes; package kube
// converts.
package service
