package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
)

// Every case of the protocol, by `durable conformance`. DURABLE_BUILD is where that was built.
func TestTheProtocol(t *testing.T) {
	build := os.Getenv("DURABLE_BUILD")
	if build == "" {
		t.Skip("DURABLE_BUILD is not set")
	}
	t.Setenv("STACKSHIFT_SIGNING_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")
	server := httptest.NewServer(endpoint())
	defer server.Close()
	command := exec.Command(build+"/cli/durable", "conformance", "--json", "--endpoint", server.URL)
	command.Stderr = os.Stderr
	said, err := command.Output() // it fails with a case
	var report struct {
		Cases []struct {
			Name, Expected, Found string
			OK                    bool
		}
	}
	if json.Unmarshal(said, &report) != nil || len(report.Cases) == 0 {
		t.Fatalf("durable conformance said %q: %v", said, err)
	}
	for _, one := range report.Cases {
		t.Run(one.Name, func(t *testing.T) {
			if !one.OK {
				t.Errorf("expected %s; found %s", one.Expected, one.Found)
			}
		})
	}
	if err != nil {
		t.Error(err)
	}
}
