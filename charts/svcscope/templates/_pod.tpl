{{- /* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Labels of the pods: no version in them, which would be one more label that changes. */}}
{{- define "svcscope.podLabels" -}}
{{- $labels := include "svcscope.selectorLabels" . | fromYaml }}
{{- $labels = merge $labels (default dict .Values.podLabels) (default dict .Values.commonLabels) }}
{{- toYaml $labels }}
{{- end }}

{{- define "svcscope.podAnnotations" -}}
{{- $annotations := dict }}
{{- if .Values.prometheus.scrapeAnnotations }}
{{- $annotations = dict
  "prometheus.io/scrape" "true"
  "prometheus.io/scheme" (include "svcscope.scheme" (list . ""))
  "prometheus.io/port" (int .Values.service.port | toString)
  "prometheus.io/path" "/metrics" }}
{{- end }}
{{- $annotations = merge (deepCopy (default dict .Values.podAnnotations)) $annotations }}
{{- with $annotations }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "svcscope.volumeMounts" -}}
{{- if include "svcscope.webConfig" . }}
- name: web-config
  mountPath: /etc/svcscope/web
  readOnly: true
{{- end }}
{{- if .Values.legacy.lockFile }}
- name: xtables-lock
  mountPath: /run/xtables.lock
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "svcscope.volumes" -}}
{{- $config := .Values.web.config }}
{{- if include "svcscope.webConfig" . }}
- name: web-config
  projected:
    # Mode 0400.
    defaultMode: 256
    sources:
      - secret:
          name: {{ default (printf "%s-web-config" (include "svcscope.fullname" .)) $config.existingSecret | toYaml }}
      {{- with $config.tlsSecret }}
      - secret:
          name: {{ toYaml . }}
      {{- end }}
{{- end }}
{{- if .Values.legacy.lockFile }}
- name: xtables-lock
  hostPath:
    path: /run/xtables.lock
    # Never another type: without one, a directory is made where the file is
    # missing, and iptables on the node fails from then on.
    type: File
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
