// Command gitserver serves bare repositories over HTTPS and SSH for the demo: stopped and started again it
// keeps its ports, its authority and its keys.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"dive-agent/testbed/gitserver"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gitserver:", err)
		os.Exit(1)
	}
}

// run serves until it is told to stop. What it made stays in the folder for the next start.
func run() error {
	dir := flag.String("dir", "", "folder for repositories (in repos/), authority and keys")
	listen := flag.String("listen", "127.0.0.1:0", "address for HTTPS")
	listenSSH := flag.String("listen-ssh", "127.0.0.1:0", `address for SSH, or "off"`)
	users := flag.String("users", "", "file with a line name:password for each reader and name:password:write for each writer; the default is one of each")
	create := flag.String("create", "", "repositories to make when they are missing, separated by commas")
	flag.Parse()
	if *dir == "" {
		return fmt.Errorf("give the folder to serve with -dir")
	}
	options := gitserver.Options{Dir: *dir, Listen: *listen, ListenSSH: *listenSSH}
	options.ErrorLog = func(line string) { fmt.Fprintln(os.Stderr, line) }
	var err error
	if options.Users, err = readUsers(*users); err != nil {
		return err
	}
	server, err := gitserver.New(options)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(*create, ",") {
		if name == "" {
			continue
		}
		if _, err := server.CreateRepository(name); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := server.Up(); err != nil {
		return err
	}
	if err := announce(server); err != nil {
		return err
	}
	return server.Run(ctx)
}

// announce prints one line of JSON once the ports answer. URLs take the repository's name in place of NAME.
func announce(server *gitserver.Server) error {
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"https": server.URL("NAME"), "ssh": server.SSHURL("NAME"),
		"caFile": server.CAFile(), "sshKeyFile": server.SSHKeyFile(), "knownHosts": server.KnownHosts(),
	})
}

func readUsers(file string) ([]gitserver.User, error) {
	if file == "" {
		return nil, nil
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer in.Close()
	users := []gitserver.User{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		switch {
		case len(parts) == 2:
			users = append(users, gitserver.User{Name: parts[0], Password: parts[1]})
		case len(parts) == 3 && parts[2] == "write":
			users = append(users, gitserver.User{Name: parts[0], Password: parts[1], Write: true})
		case parts[0] != "":
			return nil, fmt.Errorf("read users: %s: a line is neither name:password nor name:password:write", file)
		}
	}
	return users, lines.Err()
}
