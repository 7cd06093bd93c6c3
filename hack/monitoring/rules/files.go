// SPDX-License-Identifier: Apache-2.0

package rules

const (
	plainFolder = "dashboards/rules/"
	chartFolder = "charts/svcscope/files/rules/"

	generated = "# SPDX-License-Identifier: Apache-2.0\n# Made by hack/monitoring: do not edit.\n"

	recordingComment = generated + "# Load alerts.yaml together with this file: it reads what is recorded here.\n"

	alertsComment = generated + `# Load recording.yaml together with this file.
# SvcscopeDown knows the agent's targets by job="svcscope": where yours are
# called otherwise, change it there. Nothing else names a job.
# The labels cluster and node are kept where targets have them.
`
)

// Files returns the text of all generated files by their path from the
// repository's root.
func Files() (map[string][]byte, error) {
	recording, err := recordingRules().text(recordingComment)
	if err != nil {
		return nil, err
	}
	alerts, err := alertRules().text(alertsComment)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		plainFolder + "recording.yaml":  withDefaults(recording),
		plainFolder + "alerts.yaml":     withDefaults(alerts),
		chartFolder + "recording.yaml":  recording,
		chartFolder + "alerts.yaml":     alerts,
		chartFolder + "thresholds.yaml": thresholdsFile(),
	}, nil
}

func alertRules() file {
	return file{Groups: []group{
		alertGroup("conntrack", conntrackAlerts()),
		alertGroup("growth", growthAlerts()),
		alertGroup("ruleset", rulesetAlerts()),
		alertGroup("services", serviceAlerts()),
		alertGroup("drift", driftAlerts()),
		alertGroup("drops", dropAlerts()),
		alertGroup("agent", agentAlerts()),
	}}
}
