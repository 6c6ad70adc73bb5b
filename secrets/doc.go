// Package secrets makes the secrets of an instance once, keeps them on the host
// and hands them over as values and as files; and it holds the Redactor, which
// takes every secret value out of what is written for people.
//
// A secret that was made before, or beside which data exists, is never made
// again: without its old value the data is lost. What is missing is then a
// typed error that says how to put it back.
//
// The package knows no reconciler, no Git and no report. Values leave it only
// through Result, Secret.Reveal and the files it renders.
package secrets
