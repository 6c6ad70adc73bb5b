package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// unfinished marks a volume in which the root user is being made. A volume with it holds nothing of anybody's.
const unfinished = ".first-boot-unfinished"

const (
	nameVariable     = "MONGO_INITDB_ROOT_USERNAME"
	passwordVariable = "MONGO_INITDB_ROOT_PASSWORD"
)

var secretVariables = []string{nameVariable, passwordVariable, nameVariable + "_FILE", passwordVariable + "_FILE"}

// rootUser is the user to make. It exists only in this program's memory and in the server.
type rootUser struct{ name, password string }

// rootFromEnvironment reads the wanted root user; nil when none is asked for.
func rootFromEnvironment() (*rootUser, error) {
	name, err := valueOrFile(nameVariable)
	if err != nil {
		return nil, err
	}
	password, err := valueOrFile(passwordVariable)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "" && password == "":
		return nil, nil
	case name == "" || password == "":
		return nil, fmt.Errorf("%s and %s belong together: give both or none", nameVariable, passwordVariable)
	}
	return &rootUser{name: name, password: password}, nil
}

// valueOrFile is the variable's value, or the content of the file that its _FILE form names.
func valueOrFile(name string) (string, error) {
	value, path := os.Getenv(name), os.Getenv(name+"_FILE")
	if path == "" {
		return value, nil
	}
	if value != "" {
		return "", fmt.Errorf("%s and %s_FILE are both set: give one", name, name)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s_FILE: %w", name, err)
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}

// initialise makes the root user in an empty volume by a temporary server that only this container can reach, without
// replication and key file. A volume with data is left as it is.
func initialise(ctx context.Context, data string, args []string, root rootUser) error {
	mark := filepath.Join(data, unfinished)
	if _, err := os.Stat(mark); err == nil {
		fmt.Fprintln(os.Stderr, "mongod-entrypoint: an earlier first boot was stopped half-way; beginning anew")
		if err := empty(data, unfinished); err != nil {
			return err
		}
	} else if hasData(data) {
		return nil
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := syncDir(data); err != nil {
		return err
	}
	if err := withTemporaryServer(ctx, data, args, func(uri string) error { return createRoot(ctx, uri, root) }); err != nil {
		return err
	}
	if err := os.Remove(mark); err != nil {
		return err
	}
	return syncDir(data)
}

// hasData reports whether a server has written to the volume before.
func hasData(data string) bool {
	for _, name := range []string{"WiredTiger", "journal", "local.0", "storage.bson"} {
		if _, err := os.Stat(filepath.Join(data, name)); err == nil {
			return true
		}
	}
	return false
}

// withTemporaryServer runs a server on a socket of its own while do works, and waits for its orderly end.
func withTemporaryServer(ctx context.Context, data string, args []string, do func(uri string) error) error {
	dir, err := os.MkdirTemp("", "mongod-first-boot-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	logFile := filepath.Join(dir, "log")
	cmd := exec.CommandContext(ctx, "mongod", temporaryArgs(args, data, dir, logFile)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	uri := "mongodb://" + strings.ReplaceAll(filepath.Join(dir, "mongodb-27017.sock"), "/", "%2F") +
		"/?directConnection=true&connectTimeoutMS=2000&serverSelectionTimeoutMS=2000"
	if err := awaitServer(ctx, uri, exited); err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("%w\n%s", err, tail(logFile))
	}
	doErr := do(uri)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && doErr == nil {
		return err
	}
	if err := <-exited; err != nil && doErr == nil {
		return fmt.Errorf("the temporary server ended badly: %w\n%s", err, tail(logFile))
	}
	return doErr
}

// temporaryArgs are the options of the real server that concern how data is stored, with replication, access and
// addresses taken away.
func temporaryArgs(args []string, data, dir, logFile string) []string {
	out := []string{"--dbpath", data, "--bind_ip", "127.0.0.1", "--port", "27017", "--unixSocketPrefix", dir, "--logpath", logFile}
	takesValue := map[string]bool{
		"--oplogSize": true, "--wiredTigerCacheSizeGB": true, "--wiredTigerEngineConfigString": true,
		"--wiredTigerCollectionBlockCompressor": true, "--wiredTigerJournalCompressor": true, "--storageEngine": true,
	}
	for i := 1; i < len(args); i++ {
		name, _, joined := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--directoryperdb" || args[i] == "--wiredTigerDirectoryForIndexes":
			out = append(out, args[i])
		case takesValue[name] && joined && name != "--oplogSize":
			out = append(out, args[i])
		case takesValue[name] && !joined && i+1 < len(args):
			if name != "--oplogSize" {
				out = append(out, args[i], args[i+1])
			}
			i++
		}
	}
	return out
}

// awaitServer returns when the server answers, and fails as soon as it has ended.
func awaitServer(ctx context.Context, uri string, exited <-chan error) error {
	cli, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(250 * time.Millisecond))
	if err != nil {
		return err
	}
	defer func() { _ = cli.Disconnect(context.WithoutCancel(ctx)) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := cli.Ping(ctx, nil)
		if last == nil {
			return nil
		}
		select {
		case err := <-exited:
			return fmt.Errorf("the temporary server ended while it started: %w", errors.Join(err))
		case <-ctx.Done():
			return fmt.Errorf("the temporary server does not answer: %w", last)
		case <-tick.C:
		}
	}
}

func createRoot(ctx context.Context, uri string, root rootUser) error {
	cli, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	defer func() { _ = cli.Disconnect(context.WithoutCancel(ctx)) }()
	return cli.Database("admin").RunCommand(ctx, bson.D{
		{Key: "createUser", Value: root.name},
		{Key: "pwd", Value: root.password},
		{Key: "roles", Value: bson.A{bson.D{{Key: "role", Value: "root"}, {Key: "db", Value: "admin"}}}},
	}).Err()
}

// ping asks the server in this container for a sign of life; no login is needed.
func ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	port := os.Getenv("MONGO_PORT")
	if port == "" {
		port = "27017"
	}
	cli, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:" + port + "/?directConnection=true"))
	if err != nil {
		return err
	}
	defer func() { _ = cli.Disconnect(context.WithoutCancel(ctx)) }()
	if err := cli.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Err(); err != nil {
		return fmt.Errorf("mongod on port %s does not answer: %w", port, err)
	}
	return nil
}

// empty removes everything in the folder but the entry to keep; the folder itself may be a mount.
func empty(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == keep {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

// chownTree changes the owner of what does not belong to it yet. What vanishes meanwhile and what is read-only (a
// mounted secret) stays as it is.
func chownTree(root string, uid, gid int) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid {
			return nil
		}
		err = os.Lchown(path, uid, gid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EROFS) {
			return nil
		}
		return err
	})
}

func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) > 10 {
		lines = lines[len(lines)-10:]
	}
	return strings.Join(lines, "\n")
}
