// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
)

// validateKube checks what is asked of the API beside Services.
func (c *Config) validateKube() error {
	var errs []error
	if c.KubeEvents && !c.KubePods {
		errs = append(errs, errors.New("--kube.events: needs --kube.pods"))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"--kube.pods", c.KubePods}, {"--kube.policies", c.KubePolicies}, {"--kube.events", c.KubeEvents}} {
		if f.set && c.Kube == KubeNever {
			errs = append(errs, fmt.Errorf("%s: not with --kube=never", f.name))
		}
	}
	return errors.Join(errs...)
}
