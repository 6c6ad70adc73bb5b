// Package browser is a real browser for tests and the demo: Debian's chromium, without a window, used as a person would use it. It
// reaches this machine alone, by the name localhost or by addresses. It knows no page.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/chromedp/chromedp"

	"dive-agent/testbed"
)

// limits of what the browser is waited for; a machine under load needs much of them.
const (
	installLimit = 10 * time.Minute
	startLimit   = 2 * time.Minute
	actionLimit  = time.Minute
)

// flags beside those of chromedp. Every name but localhost is answered with an error in the browser itself, so that it looks
// nothing up and sends nothing to anybody else, whatever a page or its maker wants.
var flags = []chromedp.ExecAllocatorOption{
	chromedp.NoSandbox, // it does not start as root with one; all that it shows is ours
	chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
	chromedp.Flag("no-proxy-server", true),
	chromedp.Flag("disable-component-update", true),
	chromedp.Flag("disable-domain-reliability", true),
	chromedp.Flag("disable-gpu", true),
	chromedp.Flag("lang", "en"),
	chromedp.WindowSize(1100, 900),
}

// Browser is one running browser. Its profile, its home and what it keeps for a while are in a folder of its own.
type Browser struct {
	ctx    context.Context
	cancel context.CancelFunc // ends it and what it started
	dir    string
}

// Start installs the browser when it is not there and starts it, with its folder made in parent (empty: where temporary ones are). It
// ends with the context, or with Close, which removes the folder.
func Start(ctx context.Context, parent string, say testbed.Progress) (*Browser, error) {
	installing, done := context.WithTimeout(ctx, installLimit)
	defer done()
	program, err := testbed.Chromium(installing, say)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "browser-")
	if err != nil {
		return nil, err
	}
	for _, folder := range []string{"profile", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	options := slices.Concat(chromedp.DefaultExecAllocatorOptions[:], flags, []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program), chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.NoInheritEnv,
		chromedp.Env("HOME="+dir, "TMPDIR="+filepath.Join(dir, "tmp"), "PATH="+os.Getenv("PATH"), "LANG=C.UTF-8"),
	})
	allocator, stop := chromedp.NewExecAllocator(ctx, options...)
	browser, cancel := chromedp.NewContext(allocator)
	b := &Browser{ctx: browser, cancel: func() { cancel(); stop() }, dir: dir}
	late := time.AfterFunc(startLimit, cancel)
	if err := chromedp.Do(browser); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", program, err), b.Close())
	}
	if !late.Stop() {
		return nil, errors.Join(fmt.Errorf("start %s: not within %s", program, startLimit), b.Close())
	}
	return b, nil
}

// Close ends the browser and removes its folder.
func (b *Browser) Close() error {
	b.cancel()
	return testbed.Until(context.WithoutCancel(b.ctx), 10*time.Second, 50*time.Millisecond, "remove the browser's folder", func() error {
		return os.RemoveAll(b.dir) // a process of it may write its last files still
	})
}
