// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// supported are the fields of a pod's spec that the agent acts on, or that
// have no meaning on a node where nothing is scheduled by priority, evicted,
// limited or pulled. With hostNetwork, dnsPolicy ClusterFirst is what Default
// is. "=value" accepts that value alone; "*" at the end accepts
// what is below.
const supported = `
containers[].name containers[].image containers[].imagePullPolicy
containers[].command[] containers[].args[] containers[].workingDir
containers[].env[].name containers[].env[].value
containers[].env[].valueFrom.fieldRef.* containers[].env[].valueFrom.resourceFieldRef.*
containers[].env[].valueFrom.configMapKeyRef.* containers[].env[].valueFrom.secretKeyRef.*
containers[].envFrom[].prefix containers[].envFrom[].configMapRef.* containers[].envFrom[].secretRef.*
containers[].ports[].*
containers[].resources.limits.* containers[].resources.requests.*
containers[].volumeMounts[].name containers[].volumeMounts[].mountPath containers[].volumeMounts[].readOnly
containers[].volumeMounts[].subPath containers[].volumeMounts[].mountPropagation=None
containers[].terminationMessagePath containers[].terminationMessagePolicy
containers[].securityContext.allowPrivilegeEscalation containers[].securityContext.readOnlyRootFilesystem
containers[].securityContext.privileged=false containers[].securityContext.procMount=Default
containers[].securityContext.runAsUser containers[].securityContext.runAsGroup
containers[].securityContext.runAsNonRoot
containers[].securityContext.capabilities.add[] containers[].securityContext.capabilities.drop[]
containers[].securityContext.seccompProfile.type=RuntimeDefault
containers[].securityContext.seccompProfile.type=Unconfined
securityContext.runAsUser securityContext.runAsGroup securityContext.runAsNonRoot
securityContext.seccompProfile.type=RuntimeDefault securityContext.seccompProfile.type=Unconfined
volumes[].name volumes[].emptyDir
volumes[].hostPath.path volumes[].hostPath.type
volumes[].configMap.* volumes[].secret.* volumes[].downwardAPI.*
volumes[].projected.defaultMode volumes[].projected.sources[].serviceAccountToken.*
volumes[].projected.sources[].configMap.* volumes[].projected.sources[].secret.*
volumes[].projected.sources[].downwardAPI.*
serviceAccountName serviceAccount automountServiceAccountToken enableServiceLinks
nodeName nodeSelector.* affinity.nodeAffinity.* tolerations[].* schedulerName
priority priorityClassName preemptionPolicy
hostNetwork=true hostPID=false hostIPC=false
dnsPolicy=Default dnsPolicy=ClusterFirst
restartPolicy=Always terminationGracePeriodSeconds imagePullSecrets[].name
`

// probeFields are supported below each of a container's three probes.
const probeFields = `
httpGet.host httpGet.path httpGet.port httpGet.scheme httpGet.httpHeaders[].*
tcpSocket.host tcpSocket.port
initialDelaySeconds periodSeconds timeoutSeconds successThreshold failureThreshold`

// unsupported returns the fields of the spec that the agent would have to
// ignore, as name=value, in a stable order.
func unsupported(spec *corev1.PodSpec) ([]string, error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode pod spec: %w", err)
	}
	var tree map[string]any
	if err := json.Unmarshal(b, &tree); err != nil {
		return nil, fmt.Errorf("decode pod spec: %w", err)
	}
	var out []string
	known := append(strings.Fields(supported), probes()...)
	leaves(tree, "", "", func(path, pattern string, v any) {
		if !slices.ContainsFunc(known, func(k string) bool { return accepts(k, pattern, v) }) {
			out = append(out, fmt.Sprintf("spec.%s=%v", path, v))
		}
	})
	if !spec.HostNetwork {
		out = append(out, "spec.hostNetwork=false")
	}
	return out, nil
}

func probes() []string {
	var out []string
	for _, p := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
		for f := range strings.FieldsSeq(probeFields) {
			out = append(out, "containers[]."+p+"."+f)
		}
	}
	return out
}

func accepts(known, pattern string, v any) bool {
	known, value, limited := strings.Cut(known, "=")
	if m, ok := v.(map[string]any); ok && len(m) == 0 {
		// An empty object says nothing, such as emptyDir: {}.
		return known == pattern || strings.HasPrefix(known, pattern+".")
	}
	if below, ok := strings.CutSuffix(known, "*"); ok {
		return strings.HasPrefix(pattern, below)
	}
	return known == pattern && (!limited || fmt.Sprint(v) == value)
}

// leaves calls f for every value that has no other below it. The path has
// indices where the pattern has [].
func leaves(v any, path, pattern string, f func(path, pattern string, v any)) {
	switch t := v.(type) {
	case map[string]any:
		if len(t) == 0 {
			f(path, pattern, t)
		}
		for _, k := range slices.Sorted(maps.Keys(t)) {
			dot := "."
			if path == "" {
				dot = ""
			}
			leaves(t[k], path+dot+k, pattern+dot+k, f)
		}
	case []any:
		for i, e := range t {
			leaves(e, fmt.Sprintf("%s[%d]", path, i), pattern+"[]", f)
		}
	default:
		f(path, pattern, v)
	}
}
