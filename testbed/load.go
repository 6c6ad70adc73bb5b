package testbed

import _ "embed"

// LoadServer is a Python program that serves HTTP on port 80: it listens at once, answers 503 for WARMUP seconds, takes up to 0.4 s for
// each answer, which is COLOUR, and dies at once when it is told to end.
//
//go:embed load/server.py
var LoadServer string

// LoadClient is a Python program that asks http://web/slow 200 times a second, each time for the server's address anew, and tries
// the first address once. When it is told to end it prints how many requests were sent and lost: "sent=1 lost=0 slowest=0.1 ...".
//
//go:embed load/client.py
var LoadClient string
