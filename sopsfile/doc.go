// Package sopsfile reads files that SOPS encrypted (getsops.io, "Encryption Protocol"): YAML, JSON and dotenv whose values
// are encrypted one by one, under a data key that is encrypted to age recipients and OpenPGP keys.
//
// It does what `sops decrypt` does with a key of the host, in memory, and nothing else: no program is run, no key service is
// asked, no file is written. The library of SOPS itself would bring the clients of five clouds into the agent.
// A file is taken as a whole or not at all: its code over all values (mac) has to be right.
//
// The package knows no manifest and no store. It imports nothing of ours.
package sopsfile
