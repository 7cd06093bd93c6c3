{{- /* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Values that are allowed and probably not meant, one paragraph each. */}}
{{- define "svcscope.warnings" -}}
{{- $port := int .Values.service.port }}
{{- $podMonitor := include "svcscope.podMonitor" . }}
{{- if not .Values.capabilities }}

WARNING: without NET_ADMIN no rule can be read: there is conntrack's count and limit, and what the API says. The alert
SvcscopeCollectorFailing would report the rest on every node: prometheusRule.disabled.SvcscopeCollectorFailing=true.
{{- end }}
{{- if and $podMonitor .Values.prometheus.monitor.enabled }}

WARNING: PodMonitor and ServiceMonitor are both made: everything is scraped and counted twice.
{{- else if and .Values.prometheus.scrapeAnnotations (or $podMonitor .Values.prometheus.monitor.enabled) }}

WARNING: there is a monitor, and the pods have prometheus.scrapeAnnotations: a Prometheus that follows both scrapes twice.
{{- end }}
{{- if and .Values.web.config.existingSecret (or (and $podMonitor (not .Values.prometheus.podMonitor.scheme)) (and .Values.prometheus.monitor.enabled (not .Values.prometheus.monitor.scheme))) }}

WARNING: web.config.existingSecret is set, and the scrape uses plain HTTP. If the Secret has a tls_server_config set
prometheus.podMonitor.scheme=https (or prometheus.monitor.scheme) and its tlsConfig.
{{- end }}
{{- if and (eq .Values.web.api "all") (not (include "svcscope.webConfig" .)) }}

WARNING: web.api=all and no web.config: whoever reaches port {{ $port }} of a node reads the names of all Services and the
addresses of their endpoints.
{{- end }}
{{- if and (ne .Values.kube "never") (not .Values.serviceAccount.automountServiceAccountToken) }}

WARNING: kube={{ .Values.kube }} and serviceAccount.automountServiceAccountToken=false: unless extraVolumes brings credentials, the
agent has no API{{ if eq .Values.kube "always" }} and does not start{{ end }}.
{{- end }}
{{- range $value, $number := dict "service.port" $port "healthPort" (int .Values.healthPort) }}
{{- if and (ge $number 30000) (le $number 32767) }}

WARNING: {{ $value }}={{ $number }} is in the range of node ports (30000-32767): a Service may take it.
{{- end }}
{{- end }}
{{- if .Values.networkPolicy.enabled }}

WARNING: networkPolicy.enabled: most network plugins do not apply policies to pods in the node's network, which these are.
{{- end }}
{{- end }}
