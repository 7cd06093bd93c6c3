// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed" // README.md.tmpl
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

//go:embed README.md.tmpl
var readmeTemplate string

// chartInfo is what is used of Chart.yaml.
type chartInfo struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Version     string `json:"version"`
	AppVersion  string `json:"appVersion"`
	KubeVersion string `json:"kubeVersion"`
}

// Kubernetes returns the oldest version that the chart is for, as people
// write it.
func (c chartInfo) Kubernetes() string {
	return strings.TrimSuffix(strings.TrimLeft(c.KubeVersion, "^>="), ".0-0")
}

func readChart(chart string) (chartInfo, error) {
	var c chartInfo
	path := filepath.Join(chart, "Chart.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read chart: %w", err)
	}
	if err := yaml.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("parse %s: %w", path, err)
	}
	return c, nil
}

// readme returns the text of the chart's README.md.
func readme(chart string) (string, error) {
	info, err := readChart(chart)
	if err != nil {
		return "", err
	}
	values, err := readValues(chart)
	if err != nil {
		return "", err
	}
	var table strings.Builder
	for _, v := range values {
		if row := row(v); row != "" {
			table.WriteString(row)
		}
	}
	t, err := template.New("README").Parse(readmeTemplate)
	if err != nil {
		return "", fmt.Errorf("parse README.md.tmpl: %w", err)
	}
	var out strings.Builder
	err = t.Execute(&out, struct {
		chartInfo
		Values string
	}{info, strings.TrimSuffix(table.String(), "\n")})
	if err != nil {
		return "", fmt.Errorf("fill README.md.tmpl: %w", err)
	}
	return out.String(), nil
}

// row returns the value's line in the table. An object whose keys have lines
// of their own gets one only if it is described, and then without a default;
// a key without text belongs to the object above.
func row(v value) string {
	if v.text == "" {
		return ""
	}
	def := "`" + v.def + "`"
	if v.group {
		def = ""
	}
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", v.path, v.kind, cell(def), cell(v.text))
}
