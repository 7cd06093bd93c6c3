// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// rbac is what `kubectl get clusterroles,roles,clusterrolebindings,
// rolebindings -A -o json` prints of an object, as far as it counts here.
type rbac struct {
	Kind     string
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Rules []struct {
		APIGroups, Resources, Verbs, ResourceNames, NonResourceURLs []string
	}
	RoleRef  struct{ Kind, Name string }
	Subjects []struct{ Kind, Name, Namespace string }
}

// account is the agent's ServiceAccount as bindings name it.
const (
	accountNamespace = "svcscope"
	accountName      = "svcscope"
)

// binds reports whether a binding gives the agent's ServiceAccount something,
// by name or by one of its groups. What the API server itself binds everyone
// has.
func (b rbac) binds() bool {
	if !strings.HasSuffix(b.Kind, "Binding") || b.Metadata.Labels["kubernetes.io/bootstrapping"] == "rbac-defaults" {
		return false
	}
	const sa = "system:serviceaccount"
	for _, s := range b.Subjects {
		switch {
		case s.Kind == "ServiceAccount" && s.Name == accountName && s.Namespace == accountNamespace,
			s.Kind == "User" && s.Name == sa+":"+accountNamespace+":"+accountName,
			s.Kind == "Group" && slices.Contains([]string{"system:authenticated", sa + "s", sa + "s:" + accountNamespace}, s.Name):
			return true
		}
	}
	return false
}

// grants returns what the objects allow the agent's ServiceAccount, as
// "VERB GROUP/RESOURCE" or "VERB URL", with the object's name or the namespace
// where it is limited to one.
func grants(objects []rbac) map[string]bool {
	granted := map[string]bool{}
	for _, b := range objects {
		if !b.binds() {
			continue
		}
		limit := ""
		if b.Kind == "RoleBinding" {
			limit = " in " + b.Metadata.Namespace
		}
		for _, role := range objects {
			if role.Kind != b.RoleRef.Kind || role.Metadata.Name != b.RoleRef.Name ||
				role.Kind == "Role" && role.Metadata.Namespace != b.Metadata.Namespace {
				continue
			}
			maps.Copy(granted, role.allows(limit))
		}
	}
	return granted
}

// allows returns what a role allows.
func (b rbac) allows(limit string) map[string]bool {
	out := map[string]bool{}
	for _, r := range b.Rules {
		things := slices.Clone(r.NonResourceURLs)
		for _, group := range r.APIGroups {
			things = append(things, named(group, r.Resources, r.ResourceNames)...)
		}
		for _, verb := range r.Verbs {
			for _, thing := range things {
				out[verb+" "+thing+limit] = true
			}
		}
	}
	return out
}

// named returns "GROUP/RESOURCE", and the object's name where there are some.
func named(group string, resources, names []string) []string {
	var out []string
	for _, resource := range resources {
		if len(names) == 0 {
			out = append(out, group+"/"+resource)
		}
		for _, n := range names {
			out = append(out, group+"/"+resource+" named "+n)
		}
	}
	return out
}

// unused returns what is granted and not needed. lists says whether the API
// server makes the agent ask for lists.
func unused(granted, used map[string]bool, lists bool) []string {
	var out []string
	for key := range granted {
		verb, resource, _ := strings.Cut(key, " ")
		// Neither informers nor the agent get single objects. The verb is
		// granted with the other two by convention: who may list and watch
		// may read each object as well. Against an API server that streams
		// lists, list is not used; where it does not, watch follows list.
		with := granted["watch "+resource] && used["watch "+resource]
		forgiven := verb == "get" && granted["list "+resource] && with || verb == "list" && !lists && with
		if !used[key] && !forgiven {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// checkRequests compares what the ServiceAccount may with what it asked.
// lists is as in unused.
func (s *installed) checkRequests(lists bool) {
	s.t.Helper()
	var all struct{ Items []rbac }
	text := s.do("kubectl get clusterroles,roles,clusterrolebindings,rolebindings -A -o json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		s.t.Fatal(err)
	}
	granted, used := grants(all.Items), map[string]bool{}
	if len(granted) == 0 {
		s.t.Fatal("nothing is granted")
	}
	for _, r := range s.requests() {
		if r.ResponseStatus.Code == 403 {
			s.t.Errorf("refused: %s %s", r.Verb, r.URI)
		}
		if r.ObjectRef == nil || r.ObjectRef.Subresource != "" {
			s.t.Errorf("asked for what is not granted: %s %s", r.Verb, r.URI)
			continue
		}
		key := r.Verb + " " + r.ObjectRef.APIGroup + "/" + r.ObjectRef.Resource
		if !granted[key] {
			s.t.Errorf("asked for what is not granted: %s", key)
		}
		if r.Verb == "get" {
			s.t.Errorf("%s is used: the reason why it is forgiven no longer holds", key)
		}
		used[key] = true
	}
	for _, key := range unused(granted, used, lists) {
		s.t.Errorf("granted and never used: %s", key)
	}
}

// TestGrants sees that checkRequests would find each way to grant too much.
func TestGrants(t *testing.T) {
	const chart = `
		{"kind": "ClusterRole", "metadata": {"name": "svcscope"}, "rules": [
			{"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]}]},
		{"kind": "ClusterRoleBinding", "metadata": {"name": "svcscope"}, "roleRef": {"kind": "ClusterRole", "name": "svcscope"},
			"subjects": [{"kind": "ServiceAccount", "name": "svcscope", "namespace": "svcscope"}]}`
	const role = `, {"kind": "%KIND", "metadata": {"name": "more", "namespace": "%NS"}, "rules": [%RULE]}`
	const binding = `, {"kind": "%KINDBinding", "metadata": {"name": "more", "namespace": "%NS", "labels": {"kubernetes.io/bootstrapping": "%LABEL"}},
		"roleRef": {"kind": "%KIND", "name": "more"}, "subjects": [%SUBJECT]}`
	const account = `{"kind": "ServiceAccount", "name": "svcscope", "namespace": "svcscope"}`
	const secrets = `{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}`
	more := func(kind, rule, subject, label string) string {
		return strings.NewReplacer("%KIND", kind, "%NS", "kube-system", "%RULE", rule, "%SUBJECT", subject, "%LABEL", label).Replace(role + binding)
	}
	for name, c := range map[string]struct {
		more string
		want []string
	}{
		"the chart":     {"", nil},
		"get alone":     {more("ClusterRole", secrets, account, ""), []string{"get /secrets"}},
		"get and list":  {more("ClusterRole", `{"apiGroups": ["apps"], "resources": ["x"], "verbs": ["get", "list"]}`, account, ""), []string{"get apps/x", "list apps/x"}},
		"one namespace": {more("Role", secrets, account, ""), []string{"get /secrets in kube-system"}},
		"one object":    {more("ClusterRole", `{"apiGroups": [""], "resources": ["services"], "verbs": ["get"], "resourceNames": ["a"]}`, account, ""), []string{"get /services named a"}},
		"an URL":        {more("ClusterRole", `{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}`, account, ""), []string{"get /metrics"}},
		"a subresource": {more("ClusterRole", `{"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"]}`, account, ""), []string{"get /services/proxy"}},
		"everything":    {more("ClusterRole", `{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}`, account, ""), []string{"* */*"}},
		"by user":       {more("ClusterRole", secrets, `{"kind": "User", "name": "system:serviceaccount:svcscope:svcscope"}`, ""), []string{"get /secrets"}},
		"by group":      {more("ClusterRole", secrets, `{"kind": "Group", "name": "system:serviceaccounts:svcscope"}`, ""), []string{"get /secrets"}},
		"another's":     {more("ClusterRole", secrets, `{"kind": "ServiceAccount", "name": "default", "namespace": "svcscope"}`, ""), nil},
		"what all have": {more("ClusterRole", secrets, `{"kind": "Group", "name": "system:authenticated"}`, "rbac-defaults"), nil},
		"given to all":  {more("ClusterRole", secrets, `{"kind": "Group", "name": "system:authenticated"}`, ""), []string{"get /secrets"}},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []rbac
			if err := json.Unmarshal([]byte("["+chart+c.more+"]"), &objects); err != nil {
				t.Fatal(err)
			}
			got := unused(grants(objects), map[string]bool{"watch /services": true}, false)
			if !slices.Equal(got, c.want) {
				t.Errorf("granted and never used: %q, want %q", got, c.want)
			}
		})
	}
	if got := unused(map[string]bool{"list /x": true, "watch /x": true}, map[string]bool{"watch /x": true}, true); !slices.Equal(got, []string{"list /x"}) {
		t.Errorf("where lists are asked for, unused is %v, want list /x", got)
	}
}
