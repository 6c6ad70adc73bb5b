package mongo

import (
	"fmt"
	"os"
	"time"
)

func trace(format string, a ...any) {
	f, err := os.OpenFile("/tmp/speed.trace", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	fmt.Fprintf(f, "%s %s\n", time.Now().Format("05.000"), fmt.Sprintf(format, a...))
	f.Close()
}
