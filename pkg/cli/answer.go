// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// What an agent may want of who asks it, by its --web.config.file.
var (
	errTLS      = errors.New("it wants TLS")
	errPassword = errors.New("it wants a password")
	errClient   = errors.New("it wants a client certificate, and commands have none")
	errTrust    = errors.New("its certificate is not trusted here")
)

// agentRemedy is what to do where the agent that was named does not answer.
func agentRemedy(err error) string {
	switch {
	case errors.Is(err, errTLS):
		return "ask by https://"
	case errors.Is(err, errPassword):
		return "give it in the URL, https://USER:PASSWORD@HOST:PORT; in $" + agentEnv + " other users do not see it"
	case errors.Is(err, errTrust):
		return "name the file with its authority's certificate in $SSL_CERT_FILE"
	}
	return "leave --agent out to read this node's kernel where no agent answers"
}

// statusError says why there is no report: the agent's wish, or the status with
// the first line of the body, where the agent says why.
func statusError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	reason, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errors.New("no API there (agent with --web.api=never, or another program)")
	case resp.StatusCode == http.StatusUnauthorized:
		return errPassword
	case resp.StatusCode == http.StatusBadRequest && strings.Contains(reason, "HTTP request to an HTTPS server"):
		return errTLS // in the words of net/http's server
	case err != nil || reason == "":
		return errors.New(resp.Status)
	}
	return fmt.Errorf("%s: %s", resp.Status, reason)
}

// tlsCause gives the causes for which there is a remedy their names.
func tlsCause(err error) error {
	if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w: %w", errTrust, untrusted.Err)
	}
	// As far as the alert gets here: TLS 1.2 has none of its own for that, and
	// with TLS 1.3 the request may break first.
	if strings.HasSuffix(err.Error(), "tls: certificate required") {
		return errClient
	}
	return err
}

// urlCause drops the method and address that net/http puts before a cause.
func urlCause(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// shown is an agent's URL without the password.
func shown(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Redacted()
	}
	if _, host, ok := strings.Cut(address, "@"); ok {
		return host
	}
	return address
}
