{{- /* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Name of the chart: the label app.kubernetes.io/name. */}}
{{- define "svcscope.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the resources; `svcscope` for a release of that name. */}}
{{- define "svcscope.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "svcscope.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "svcscope.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "svcscope.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Labels that never change in an installation: what selectors use. */}}
{{- define "svcscope.selectorLabels" -}}
app.kubernetes.io/name: {{ include "svcscope.name" . | toYaml }}
app.kubernetes.io/instance: {{ .Release.Name | toYaml }}
{{- end }}

{{/*
Labels of every resource. The caller's own are a second item of a list:
(list $ .Values.service.labels). None of them replaces a selector's label.
*/}}
{{- define "svcscope.labels" -}}
{{- $ctx := index . 0 }}
{{- $labels := include "svcscope.selectorLabels" $ctx | fromYaml }}
{{- range append (rest .) $ctx.Values.commonLabels }}
{{- $labels = merge $labels (default dict .) }}
{{- end }}
{{- toYaml (merge $labels (dict
  "app.kubernetes.io/version" (regexReplaceAll "[^A-Za-z0-9._-]" $ctx.Chart.AppVersion "_")
  "app.kubernetes.io/managed-by" $ctx.Release.Service
  "app.kubernetes.io/part-of" "svcscope"
  "helm.sh/chart" (printf "%s-%s" $ctx.Chart.Name $ctx.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
)) }}
{{- end }}

{{/* The image: its digest if there is one, else its tag. */}}
{{- define "svcscope.image" -}}
{{- $registry := default .Values.image.registry (.Values.global).imageRegistry }}
{{- $name := .Values.image.repository }}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Pull secrets of image and global values, each by name or as an object. */}}
{{- define "svcscope.imagePullSecrets" -}}
{{- range concat (default list (.Values.global).imagePullSecrets) (default list .Values.imagePullSecrets) }}
{{- if kindIs "map" . }}
- name: {{ toYaml .name }}
{{- else }}
- name: {{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "svcscope.serviceAccountName" -}}
{{- default (ternary (include "svcscope.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* Empty unless the API is used and RBAC is the chart's to make. */}}
{{- define "svcscope.rbac" -}}
{{- if and (ne .Values.kube "never") .Values.rbac.create }}true{{ end }}
{{- end }}

{{/* Empty unless metrics and API have TLS or authentication. */}}
{{- define "svcscope.webConfig" -}}
{{- with .Values.web.config }}
{{- if or .existingSecret .inline }}true{{ end }}
{{- end }}
{{- end }}

{{/* Key and file name of the web configuration. */}}
{{- define "svcscope.webConfigKey" -}}
{{- ternary .Values.web.config.key "web-config.yaml" (not (empty .Values.web.config.existingSecret)) }}
{{- end }}

{{/* Scheme of a scrape: (list $ MONITOR.scheme). */}}
{{- define "svcscope.scheme" -}}
{{- $ctx := index . 0 }}
{{- $tls := hasKey (default dict $ctx.Values.web.config.inline) "tls_server_config" }}
{{- default (ternary "https" "http" $tls) (index . 1) }}
{{- end }}

{{/* Empty unless a monitor of Prometheus' operator is wanted: (list $ ENABLED KIND). */}}
{{- define "svcscope.monitoringEnabled" -}}
{{- $ctx := index . 0 }}
{{- $enabled := index . 1 }}
{{- if eq (toString $enabled) "auto" }}
{{- if $ctx.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" (index . 2)) }}true{{ end }}
{{- else if $enabled }}true{{ end }}
{{- end }}

{{/* Empty unless there is a PodMonitor. A ServiceMonitor makes it needless: both would scrape everything twice. */}}
{{- define "svcscope.podMonitor" -}}
{{- $enabled := .Values.prometheus.podMonitor.enabled }}
{{- if not (and .Values.prometheus.monitor.enabled (eq (toString $enabled) "auto")) }}
{{- include "svcscope.monitoringEnabled" (list . $enabled "PodMonitor") }}
{{- end }}
{{- end }}

{{/* One endpoint of a PodMonitor or ServiceMonitor, without its dash: (list $ MONITOR). */}}
{{- define "svcscope.scrape" -}}
{{- $ctx := index . 0 }}
{{- $m := index . 1 -}}
port: {{ toYaml $ctx.Values.service.portName }}
path: /metrics
scheme: {{ include "svcscope.scheme" (list $ctx $m.scheme) }}
{{- with $m.interval }}
interval: {{ . }}
{{- end }}
{{- with $m.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- range $key := list "tlsConfig" "basicAuth" "authorization" "metricRelabelings" }}
{{- with index $m $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
relabelings:
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  # These change with every rollout, and make all series anew.
  - action: labeldrop
    regex: pod|container
  {{- with $m.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
GOMEMLIMIT for a memory limit: 90 % of it, in bytes. The runtime counts neither
the binary's pages nor what the kernel charges for sockets. The downward API
could give the limit itself only, and a limit that is reached is too late.
*/}}
{{- define "svcscope.gomemlimit" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 }}
{{- $quantity := toString . }}
{{- if kindIs "float64" . }}{{ $quantity = int64 . | toString }}{{ end }}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $quantity }}
{{- $unit := trimPrefix $number $quantity }}
{{- if or (not $number) (not (hasKey $units $unit)) }}
{{- fail (printf "resources.limits.memory: %q is no number with one of the units Ki, Mi, Gi, Ti, k, M, G, T" $quantity) }}
{{- end }}
{{- mulf (float64 $number) (get $units $unit) 0.9 | int64 }}
{{- end }}

{{/* What the schema cannot say: fails with the value's place. */}}
{{- define "svcscope.validate" -}}
{{- if eq .Values.service.portName "health" }}
{{- fail "service.portName: health is the other port's name" }}
{{- end }}
{{- if eq (int .Values.service.port) (int .Values.healthPort) }}
{{- fail (printf "healthPort: %d is service.port too" (int .Values.healthPort)) }}
{{- end }}
{{- if and .Values.kubeEvents (not .Values.kubePods) }}
{{- fail "kubeEvents: needs kubePods" }}
{{- end }}
{{- range $value := list "kubePods" "kubePolicies" "kubeEvents" }}
{{- if and (eq $.Values.kube "never") (index $.Values $value) }}
{{- fail (printf "%s: not with kube: never" $value) }}
{{- end }}
{{- end }}
{{- with .Values.web.config }}
{{- if and .existingSecret .inline }}
{{- fail "web.config: existingSecret and inline are both set; choose one" }}
{{- end }}
{{- if and .tlsSecret (not (or .existingSecret .inline)) }}
{{- fail "web.config.tlsSecret: needs existingSecret or inline with a tls_server_config that names tls.crt and tls.key" }}
{{- end }}
{{- end }}
{{- end }}
