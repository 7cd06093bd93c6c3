// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Watch has the API server send all objects of that path and then what changes of
// them, in protobuf as kube-proxy has it, until ctx ends, and calls began once
// the first of it came. What comes is thrown away.
func (c *Client) Watch(ctx context.Context, path string, began func()) error {
	op := "watch " + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path+"?watch=true&resourceVersion=0&timeoutSeconds=86400", nil)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Accept", "application/vnd.kubernetes.protobuf;stream=watch")
	patient := http.Client{Transport: c.http.Transport} // it lasts longer than a request
	resp, err := patient.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &StatusError{Op: op, Code: resp.StatusCode, Message: resp.Status}
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	began()
	if _, err := io.Copy(io.Discard, resp.Body); ctx.Err() == nil {
		return fmt.Errorf("%s: ended: %v", op, err)
	}
	return nil
}
