// Reads an Ignition configuration from standard input, and judges it with Ignition's own parser and
// rules for version 3.4. Ends with 1 where there is anything to complain of.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/coreos/ignition/v2/config/v3_4"
)

func main() {
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, report, err := v3_4.Parse(raw)
	fmt.Print(report.String())
	if err != nil || len(report.Entries) > 0 {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
