// SPDX-License-Identifier: Apache-2.0

// Command cabundle prints Mozilla's root certificates in PEM, for the image's
// /etc/ssl/certs/ca-certificates.crt. Which ones is fixed by go.sum: the roots
// are the data of golang.org/x/crypto/x509roots. A module of its own keeps them
// out of the product's go.mod.
package main

import (
	"bufio"
	"encoding/pem"
	"io"
	"log"
	"os"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	if err := write(os.Stdout); err != nil {
		log.Fatalf("cabundle: %v", err)
	}
}

// write prints one PEM block per root to w, in the module's order and without
// comments. Roots that Mozilla trusts only for certificates issued before some
// date are left out: PEM cannot say that.
func write(w io.Writer) error {
	out := bufio.NewWriter(w)
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return err
		}
	}
	return out.Flush()
}
