package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
)

// streams is where a command writes.
type streams struct{ out, err io.Writer }

// json writes a value as indented JSON.
func (s streams) json(v any) error {
	encoder := json.NewEncoder(s.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func (s streams) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format, args...) // a closed pipe ends the program by SIGPIPE
}

// terminal says whether standard output is one that may be drawn on.
func (s streams) terminal() bool {
	file, ok := s.out.(*os.File)
	return ok && isatty.IsTerminal(file.Fd()) && os.Getenv("TERM") != "dumb"
}

// colour says whether colours are welcome.
func (s streams) colour() bool { return s.terminal() && os.Getenv("NO_COLOR") == "" }

// jsonLine writes a value as one line.
func (s streams) jsonLine(v any) error { return json.NewEncoder(s.out).Encode(v) }

// indent puts a prefix before each line.
func indent(text, prefix string) string {
	return prefix + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+prefix)
}
