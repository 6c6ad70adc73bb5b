package compose

import (
	"errors"
	"strings"

	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// away tells an engine that does not answer from whatever was asked of it.
func away(engine *client.Client, err error) error {
	if err == nil || !client.IsErrConnectionFailed(err) {
		return err
	}
	do := "Start it: systemctl start docker. Why it ended: journalctl -u docker -e. The agent goes on by itself"
	if strings.Contains(err.Error(), "permission denied") {
		do = "Let the agent's account open the socket: add it to group docker, and restart the agent"
	}
	return &reconcilers.AwayError{What: "the Docker Engine at " + engine.DaemonHost(), Do: do, Err: err}
}

var errUnsupported = errors.New("the engine would silently ignore it")
