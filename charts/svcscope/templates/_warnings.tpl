{{- /* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Values that are allowed and probably not meant, one paragraph each. */}}
{{- define "svcscope.warnings" -}}
{{- $port := int .Values.service.port }}
{{- $podMonitor := include "svcscope.podMonitor" . }}
{{- if not .Values.capabilities }}

WARNING: without NET_ADMIN no rule can be read: there is conntrack's count and limit, and what the API says.
{{- if (include "svcscope.disabledAlerts" . | fromYaml).SvcscopeCollectorFailing }}
The alert SvcscopeCollectorFailing, which would report the rest on every node, is left out.
{{- else }}
The alert SvcscopeCollectorFailing will report the rest on every node, as prometheusRule.disabled asks for.
{{- end }}
{{- end }}
{{- if and $podMonitor .Values.prometheus.monitor.enabled }}

WARNING: PodMonitor and ServiceMonitor are both made: everything is scraped and counted twice.
{{- else if and .Values.prometheus.scrapeAnnotations (or $podMonitor .Values.prometheus.monitor.enabled) }}

WARNING: there is a monitor, and the pods have prometheus.scrapeAnnotations: a Prometheus that follows both scrapes twice.
{{- end }}
{{- if $podMonitor }}
{{- include "svcscope.scrapeWarnings" (list . "prometheus.podMonitor" .Values.prometheus.podMonitor) }}
{{- end }}
{{- if .Values.prometheus.monitor.enabled }}
{{- include "svcscope.scrapeWarnings" (list . "prometheus.monitor" .Values.prometheus.monitor) }}
{{- end }}
{{- if and (include "svcscope.prometheusRule" .) (not (or $podMonitor .Values.prometheus.monitor.enabled .Values.prometheusRule.job)) }}

WARNING: there is a PrometheusRule, and no PodMonitor or ServiceMonitor of this chart's. The alert SvcscopeDown selects
job={{ include "svcscope.job" . | quote }}: set prometheusRule.job to the name of the job that scrapes the agents.
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

{{/* What makes every scrape fail, or may: (list $ PATH MONITOR), where PATH is the monitor's in the values. */}}
{{- define "svcscope.scrapeWarnings" -}}
{{- $ctx := index . 0 }}
{{- $path := index . 1 }}
{{- $m := index . 2 }}
{{- $secret := $ctx.Values.web.config.existingSecret }}
{{- $inline := default dict $ctx.Values.web.config.inline }}
{{- $https := eq (include "svcscope.scheme" (list $ctx $m.scheme)) "https" }}
{{- if and $secret (not $m.scheme) }}

WARNING: web.config.existingSecret is set, and the scrape uses plain HTTP. If the Secret has a tls_server_config set
{{ $path }}.scheme=https and {{ $path }}.tlsConfig; if it has basic_auth_users, {{ $path }}.basicAuth.
{{- else if and $https (not (or $secret (hasKey $inline "tls_server_config"))) }}

WARNING: {{ $path }}.scheme=https, and the agents have no TLS (web.config): every scrape fails.
{{- else if and (not $https) (hasKey $inline "tls_server_config") }}

WARNING: {{ $path }}.scheme=http, and the agents have TLS (web.config.inline): every scrape fails.
{{- else if and $https (not $m.tlsConfig) }}

WARNING: the scrape uses HTTPS, and {{ $path }}.tlsConfig is empty: it fails on every node whose certificate is not of an
authority that Prometheus' own system trusts, or does not name the node's address. Set ca and serverName there.
{{- end }}
{{- if and $inline.basic_auth_users (not (or $m.basicAuth $m.authorization)) }}

WARNING: web.config.inline has basic_auth_users, and neither {{ $path }}.basicAuth nor authorization is set: every scrape
is refused (401).
{{- end }}
{{- end }}
