{{- /* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Name of the job that scrapes the agents: the monitors take it from a label of the pods. */}}
{{- define "svcscope.job" -}}
{{- default (include "svcscope.name" .) .Values.prometheusRule.job }}
{{- end }}

{{/* Empty unless there is a PrometheusRule. */}}
{{- define "svcscope.prometheusRule" -}}
{{- include "svcscope.monitoringEnabled" (list . .Values.prometheusRule.enabled "PrometheusRule") }}
{{- end }}

{{/*
Alerts to leave out, as YAML. Without NET_ADMIN what SvcscopeCollectorFailing
reports is so on every node, and wanted.
*/}}
{{- define "svcscope.disabledAlerts" -}}
{{- $disabled := deepCopy (default dict .Values.prometheusRule.disabled) }}
{{- if not (or .Values.capabilities (hasKey $disabled "SvcscopeCollectorFailing")) }}
{{- $_ := set $disabled "SvcscopeCollectorFailing" true }}
{{- end }}
{{- toYaml $disabled }}
{{- end }}

{{/*
Text of a rule file with numbers for its tokens: (list $ PATH). The token of
conntrackWarning is __CONNTRACK_WARNING__. The text is never a template: the
braces in it are Prometheus' own.
*/}}
{{- define "svcscope.ruleText" -}}
{{- $ctx := index . 0 }}
{{- $text := $ctx.Files.Get (index . 1) }}
{{- range $name, $value := $ctx.Values.prometheusRule.thresholds }}
{{- $text = replace (printf "__%s__" (snakecase $name | upper)) (ternary $value (toJson $value) (kindIs "string" $value)) $text }}
{{- end }}
{{- with regexFind "__[A-Z0-9_]+__" $text }}
{{- fail (printf "%s: prometheusRule.thresholds has nothing for %s" (index $ 1) .) }}
{{- end }}
{{- $text }}
{{- end }}

{{/*
Groups of all rule files and prometheusRule.customRules, as YAML with the one
key groups: without the alerts that are disabled, with the name of the scrape
job, and with the runbooks' URLs as prometheusRule.runbookUrl wants them.
*/}}
{{- define "svcscope.ruleGroups" -}}
{{- $want := .Values.prometheusRule }}
{{- $job := include "svcscope.job" . }}
{{- $disabled := include "svcscope.disabledAlerts" . | fromYaml }}
{{- $groups := list }}
{{- $alerts := list }}
{{- range $path := list "files/rules/recording.yaml" "files/rules/alerts.yaml" }}
{{- range $group := (include "svcscope.ruleText" (list $ $path) | fromYaml).groups }}
{{- $rules := list }}
{{- range $rule := $group.rules }}
{{- $_ := set $rule "expr" (replace "job=\"svcscope\"" (printf "job=%q" $job) $rule.expr) }}
{{- range $key, $text := $rule.annotations }}
{{- $_ := set $rule.annotations $key (regexReplaceAllLiteral "\\bjob svcscope\\b" $text (print "job " $job)) }}
{{- end }}
{{- with $rule.alert }}
{{- $alerts = append $alerts . }}
{{- end }}
{{- with ($rule.annotations).runbook_url }}
{{- $_ := set $rule.annotations "runbook_url" (print $want.runbookUrl (regexReplaceAll "^.*[/#]" . "")) }}
{{- end }}
{{- if not (and $rule.alert (get $disabled $rule.alert)) }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- end }}
{{- if $rules }}
{{- $groups = append $groups (set $group "rules" $rules) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := $disabled }}
{{- if not (has $name $alerts) }}
{{- fail (printf "prometheusRule.disabled.%s: there is no such alert, but %s" $name ($alerts | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- toYaml (dict "groups" (concat $groups (default list $want.customRules))) }}
{{- end }}
