// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// overlayPatches returns the patches that make the objects in want of those in
// base, by file name, one for each object that differs: kustomize before 5.7.0
// panics at a file in which two documents delete. Objects may change and go,
// not come.
func overlayPatches(base, want string) (map[string]string, error) {
	from, to, err := decodeBoth(base, want)
	if err != nil {
		return nil, err
	}
	for name := range to {
		if from[name] == nil {
			return nil, fmt.Errorf("%s is not in the base", name)
		}
	}
	out := map[string]string{}
	for _, name := range sorted(from) {
		patch, err := objectPatch(from[name], to[name])
		if err != nil {
			return nil, fmt.Errorf("patch of %s: %w", name, err)
		}
		if patch == "" {
			continue
		}
		file := strings.ToLower(from[name].GetObjectKind().GroupVersionKind().Kind) + ".yaml"
		if out[file] != "" {
			return nil, fmt.Errorf("two patches are %s", file)
		}
		out[file] = patch
	}
	return out, nil
}

func decodeBoth(a, b string) (map[string]object, map[string]object, error) {
	var out [2]map[string]object
	for i, text := range []string{a, b} {
		objects, err := decode(text)
		if err != nil {
			return nil, nil, err
		}
		if out[i], err = byID(objects); err != nil {
			return nil, nil, err
		}
	}
	return out[0], out[1], nil
}

func sorted(m map[string]object) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// objectPatch returns the document that makes to of from; it is empty where
// they are equal, and deletes the object where to is nil.
func objectPatch(from, to object) (string, error) {
	patch := map[string]any{"$patch": "delete"}
	if to != nil {
		a, err := json.Marshal(from)
		if err != nil {
			return "", err
		}
		b, err := json.Marshal(to)
		if err != nil {
			return "", err
		}
		diff, err := strategicpatch.CreateTwoWayMergePatch(a, b, reflect.New(reflect.TypeOf(from).Elem()).Interface())
		if err != nil {
			return "", err
		}
		patch = map[string]any{}
		if err := json.Unmarshal(diff, &patch); err != nil {
			return "", err
		}
		if len(patch) == 0 {
			return "", nil
		}
		dropOrder(patch)
	}
	patch["apiVersion"], patch["kind"] = from.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	meta, _ := patch["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta["name"] = from.GetName()
	if from.GetNamespace() != "" {
		meta["namespace"] = from.GetNamespace()
	}
	patch["metadata"] = meta
	text, err := yaml.Marshal(patch)
	return "---\n" + string(text), err
}

// dropOrder removes what kubectl puts into patches to keep the order of lists:
// kustomize does not know it and would leave it in the result.
func dropOrder(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, below := range v {
			if strings.HasPrefix(key, "$setElementOrder/") {
				delete(v, key)
				continue
			}
			dropOrder(below)
		}
	case []any:
		for _, below := range v {
			dropOrder(below)
		}
	}
}
