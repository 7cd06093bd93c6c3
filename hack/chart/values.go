// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is a key of values.yaml.
type value struct {
	// path is the key's name with those above it, joined by dots.
	path string
	// parent is the path of the object that it is in, empty at the top.
	parent string
	// kind is string, bool, int, float, list, object or null.
	kind string
	// def is the default as one line of JSON.
	def string
	// text is what the comment "# -- text" above the key says.
	text string
	// group is true of an object whose keys are described one by one.
	group bool
	// leaf is true of a key with no key below.
	leaf bool
}

// readValues returns all keys of the chart's values.yaml in their order, an
// object before the keys in it.
func readValues(chart string) ([]value, error) {
	path := filepath.Join(chart, "values.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("parse %s: not one object", path)
	}
	return walkValues("", doc.Content[0])
}

func walkValues(parent string, object *yaml.Node) ([]value, error) {
	var out []value
	prefix := ""
	if parent != "" {
		prefix = parent + "."
	}
	for i := 0; i+1 < len(object.Content); i += 2 {
		key, node := object.Content[i], object.Content[i+1]
		v := value{path: prefix + key.Value, parent: parent, kind: kindOf(node), text: describe(key.HeadComment)}
		var err error
		if v.def, err = oneLine(node); err != nil {
			return nil, fmt.Errorf("default of %s: %w", v.path, err)
		}
		v.leaf = node.Kind != yaml.MappingNode || len(node.Content) == 0
		var below []value
		if !v.leaf {
			if below, err = walkValues(v.path, node); err != nil {
				return nil, err
			}
			for _, b := range below {
				v.group = v.group || b.text != ""
			}
		}
		out = append(append(out, v), below...)
	}
	return out, nil
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "object"
	case yaml.SequenceNode:
		return "list"
	}
	switch n.Tag {
	case "!!bool":
		return "bool"
	case "!!int":
		return "int"
	case "!!float":
		return "float"
	case "!!null":
		return "null"
	}
	return "string"
}

func oneLine(n *yaml.Node) (string, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return "", err
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// describe returns the text from the last line that begins with "# --" on, in
// one line; empty without such a line.
func describe(comment string) string {
	var text []string
	found := false
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "#"))
		if rest, ok := strings.CutPrefix(line, "--"); ok {
			text, found, line = nil, true, strings.TrimSpace(rest)
		}
		if line != "" {
			text = append(text, line)
		}
	}
	if !found {
		return ""
	}
	return strings.Join(text, " ")
}
