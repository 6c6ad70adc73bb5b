package desired

import (
	"fmt"
	"io"
	"log/slog"
)

// Format keeps a secret out of every text that fmt makes, whatever the verb: it writes what Display gives.
func (v Value) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, v.Display()) }

// LogValue keeps a secret out of logs: it gives what Display gives.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.Display()) }
