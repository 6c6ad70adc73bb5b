package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"time"

	"dive-agent/agent"
	"dive-agent/report"
)

// The elements of JUnit XML that CI systems read: a suite for each instance, a case for each check. A check of severity warn
// that failed is told as skipped: the format has no warning, and it fails nothing.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Hostname  string      `xml:"hostname,attr,omitempty"`
		Timestamp string      `xml:"timestamp,attr,omitempty"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Skipped   int         `xml:"skipped,attr"`
		Time      string      `xml:"time,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string     `xml:"name,attr"`
		Class   string     `xml:"classname,attr"`
		Time    string     `xml:"time,attr"`
		Failure *junitWord `xml:"failure"`
		Skipped *junitWord `xml:"skipped"`
		Out     string     `xml:"system-out,omitempty"`
	}
	junitWord struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
	}
)

// writeJUnit writes the file anew.
func writeJUnit(path string, all []agent.Verification) error {
	content, err := junitXML(all)
	if err == nil {
		err = os.WriteFile(path, content, 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write the results for the CI: %w", err)
	}
	return nil
}

func junitXML(all []agent.Verification) ([]byte, error) {
	suites := junitSuites{Name: "dive-agent verify"}
	for _, one := range all {
		suite := junitSuiteOf(one)
		suites.Tests += suite.Tests
		suites.Failures += suite.Failures
		suites.Skipped += suite.Skipped
		suites.Suites = append(suites.Suites, suite)
	}
	content, err := xml.MarshalIndent(suites, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(content, '\n')...), nil
}

func junitSuiteOf(v agent.Verification) junitSuite {
	suite := junitSuite{Name: v.Instance, Hostname: v.Host}
	var first time.Time
	var took time.Duration
	for _, c := range v.Checks {
		suite.Cases = append(suite.Cases, junitCaseOf(v.Instance, c))
		took += c.Took
		if first.IsZero() || c.At.Before(first) {
			first = c.At
		}
	}
	if len(v.Checks) == 0 { // nothing verified is no success
		message := "no check was made"
		for _, line := range v.Why {
			message += "; " + line
		}
		suite.Cases = []junitCase{{Name: "checks", Class: v.Instance, Time: seconds(0), Failure: &junitWord{printable(message), "none"}}}
	}
	for _, c := range suite.Cases {
		suite.Tests++
		if c.Failure != nil {
			suite.Failures++
		}
		if c.Skipped != nil {
			suite.Skipped++
		}
	}
	if !first.IsZero() {
		suite.Timestamp = first.UTC().Format("2006-01-02T15:04:05")
	}
	suite.Time = seconds(took)
	return suite
}

func junitCaseOf(instance string, c report.Check) junitCase {
	told := junitCase{Name: c.Name, Class: instance + "." + c.Component, Time: seconds(c.Took)}
	switch _, verdict := c.Verdict(); verdict {
	case "failed":
		told.Failure = &junitWord{printable(c.Saw), "failed"}
	case "warning":
		told.Skipped = &junitWord{Message: "warning: " + printable(c.Saw)}
	default:
		told.Out = printable(c.Saw)
	}
	return told
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
