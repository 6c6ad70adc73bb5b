package testbed

import (
	"context"
	"errors"
)

// Chromium gives the path of Debian's chromium, which is installed when it is not there: 124 MB to download, some ten seconds.
func Chromium(ctx context.Context, say Progress) (string, error) {
	if err := install(ctx, say, needProgram{"chromium", "chromium"}); err != nil {
		return "", err
	}
	path := lookPath("chromium")
	if path == "" {
		return "", errors.New("the package chromium is installed, and has no program chromium")
	}
	return path, nil
}
