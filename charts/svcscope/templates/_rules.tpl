{{- /* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
Text of a rule file with numbers for its tokens, and with the name of the scrape
job: (list $ PATH). The token of conntrackWarning is __CONNTRACK_WARNING__. The
text is never a template: the braces in it are Prometheus' own.
*/}}
{{- define "svcscope.ruleText" -}}
{{- $ctx := index . 0 }}
{{- $text := $ctx.Files.Get (index . 1) | replace "job=\"svcscope\"" (printf "job=%q" (include "svcscope.name" $ctx)) }}
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
key groups: without the alerts that are disabled, and with the runbooks' URLs
as prometheusRule.runbookUrl wants them.
*/}}
{{- define "svcscope.ruleGroups" -}}
{{- $want := .Values.prometheusRule }}
{{- $groups := list }}
{{- $alerts := list }}
{{- range $path := list "files/rules/recording.yaml" "files/rules/alerts.yaml" }}
{{- range $group := (include "svcscope.ruleText" (list $ $path) | fromYaml).groups }}
{{- $rules := list }}
{{- range $rule := $group.rules }}
{{- with $rule.alert }}
{{- $alerts = append $alerts . }}
{{- end }}
{{- with ($rule.annotations).runbook_url }}
{{- $_ := set $rule.annotations "runbook_url" (print $want.runbookUrl (regexReplaceAll "^.*[/#]" . "")) }}
{{- end }}
{{- if not (and $rule.alert (get (default dict $want.disabled) $rule.alert)) }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- end }}
{{- if $rules }}
{{- $groups = append $groups (set $group "rules" $rules) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := $want.disabled }}
{{- if not (has $name $alerts) }}
{{- fail (printf "prometheusRule.disabled.%s: there is no such alert, but %s" $name ($alerts | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- toYaml (dict "groups" (concat $groups (default list $want.customRules))) }}
{{- end }}
