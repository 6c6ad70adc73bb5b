// Command mongod-entrypoint starts mongod as the official image's entrypoint does: it gives the data to the user of the
// server, makes the root user of MONGO_INITDB_ROOT_USERNAME and MONGO_INITDB_ROOT_PASSWORD (or their _FILE forms) on the
// first boot of an empty volume, and then becomes mongod.
//
// Making the root user can be killed at any point: a mark in the volume tells the next start to begin anew.
//
// `mongod-entrypoint ping` is the image's health check: it exits with 0 when the server answers.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 1 && args[0] == "ping" {
		if err := ping(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "mongod-entrypoint:", err)
			os.Exit(1)
		}
		return
	}
	if err := start(args); err != nil {
		fmt.Fprintln(os.Stderr, "mongod-entrypoint:", err)
		os.Exit(1)
	}
}

// start becomes the program that args name; mongod is prepared first. It returns only on an error.
func start(args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		args = append([]string{"mongod"}, args...)
	}
	if args[0] != "mongod" {
		return become(args)
	}
	account, err := serverAccount()
	if err != nil {
		return err
	}
	data := dataPath(args)
	if account != nil {
		if err := account.own(data, "/data/configdb"); err != nil {
			return err
		}
		if err := account.enter(); err != nil {
			return err
		}
	}
	root, err := rootFromEnvironment()
	if err != nil {
		return err
	}
	if root != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := initialise(ctx, data, args, *root); err != nil {
			return fmt.Errorf("make the root user in %s: %w", data, err)
		}
		args = withAuth(args)
	}
	if !hasOption(args, "--bind_ip") && !hasOption(args, "--bind_ip_all") {
		args = append(args, "--bind_ip_all")
	}
	for _, name := range secretVariables {
		_ = os.Unsetenv(name) // the server has no use for them
	}
	return become(args)
}

// become replaces this process by the program.
func become(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := syscall.Exec(path, args, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// withAuth turns access control on, unless a key file does so already.
func withAuth(args []string) []string {
	if hasOption(args, "--auth") || hasOption(args, "--keyFile") {
		return args
	}
	return append(args, "--auth")
}

// hasOption reports whether the option is given, as `--option value` or `--option=value`.
func hasOption(args []string, name string) bool {
	for _, a := range args {
		if a == name || strings.HasPrefix(a, name+"=") {
			return true
		}
	}
	return false
}

// option is the value of the option, or otherwise.
func option(args []string, name, otherwise string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v
		}
		if a == name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return otherwise
}

func dataPath(args []string) string { return option(args, "--dbpath", "/data/db") }

// account is the user that the server runs as.
type account struct{ uid, gid int }

// serverAccount is the account to change to, or nil when this process is not root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("mongodb")
	if err != nil {
		return nil, fmt.Errorf("find the server's account: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &account{uid: uid, gid: gid}, nil
}

// own gives the folders, and what lies in them, to the account.
func (a account) own(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := chownTree(dir, a.uid, a.gid); err != nil {
			return fmt.Errorf("give %s to the server: %w", dir, err)
		}
	}
	return nil
}

// enter makes this process, all threads of it, run as the account.
func (a account) enter() error {
	if err := syscall.Setgroups([]int{a.gid}); err != nil {
		return fmt.Errorf("leave root's groups: %w", err)
	}
	if err := syscall.Setgid(a.gid); err != nil {
		return fmt.Errorf("change to group %d: %w", a.gid, err)
	}
	if err := syscall.Setuid(a.uid); err != nil {
		return fmt.Errorf("change to user %d: %w", a.uid, err)
	}
	return nil
}
