package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/mattn/go-isatty"
	"golang.org/x/sys/unix"
)

// streams is where a command writes.
type streams struct{ out, err io.Writer }

// json writes a value as indented JSON.
func (s streams) json(v any) error {
	encoder := json.NewEncoder(s.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printf writes text in which a commit, a container or a server may have had a say: what would steer a terminal is left out.
func (s streams) printf(format string, args ...any) {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = printable(text)
		}
	}
	_, _ = fmt.Fprintf(s.out, format, args...) // a closed pipe ends the program by SIGPIPE
}

// printable leaves out control characters but line breaks and tabs, and those that reverse or hide others.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return -1
		}
		return r
	}, text)
}

// terminal says whether standard output is one that may be drawn on.
func (s streams) terminal() bool {
	file, ok := s.out.(*os.File)
	return ok && isatty.IsTerminal(file.Fd()) && os.Getenv("TERM") != "dumb"
}

// confirmed asks on a terminal whether to overwrite, and takes nothing but yes. Without a terminal nobody is asked.
func (s streams) confirmed(in io.Reader) bool {
	if file, ok := in.(*os.File); !ok || !isatty.IsTerminal(file.Fd()) {
		return false
	}
	_, _ = fmt.Fprint(s.err, "Type yes to overwrite them: ")
	answer, _ := bufio.NewReader(in).ReadString('\n')
	return strings.TrimSpace(answer) == "yes"
}

// width is of the terminal in characters, 0 where there is none.
func (s streams) width() int {
	file, ok := s.out.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// colour says whether colours are welcome.
func (s streams) colour() bool { return s.terminal() && os.Getenv("NO_COLOR") == "" }

// jsonLine writes a value as one line.
func (s streams) jsonLine(v any) error { return json.NewEncoder(s.out).Encode(v) }

// indent puts a prefix before each line.
func indent(text, prefix string) string {
	return prefix + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+prefix)
}
