// Command pulled is what the images of the test bed's registry hold: the smallest service there is. It runs until it is told
// to stop; `pulled fail` ends at once with 3, `pulled true` with 0.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "fail":
			os.Exit(3)
		case "true":
			return
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
