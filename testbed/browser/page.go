package browser

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/chromedp/chromedp"
)

// Page is the window of one person. Its actions wait for what they need, a minute at most; their errors tell where the page is and
// what it shows, and nothing of what was typed. Elements are named by CSS selectors.
type Page struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// NewPage opens the window of somebody who was never anywhere: without cookies, and sharing none with others.
func (b *Browser) NewPage() (*Page, error) {
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		return nil, fmt.Errorf("open a window: %w", err)
	}
	return &Page{ctx: ctx, cancel: cancel}, nil
}

// Close closes the window, and forgets what it had.
func (p *Page) Close() { p.cancel() }

// do carries out actions of the person.
func (p *Page) do(what string, actions ...chromedp.Action[chromedp.Void]) error {
	ctx, done := context.WithTimeout(p.ctx, actionLimit)
	defer done()
	if err := chromedp.Do(ctx, actions...); err != nil {
		return fmt.Errorf("%s: %w; %s", what, err, p.describe())
	}
	return nil
}

// Open goes to an address.
func (p *Page) Open(address string) error {
	return p.do("open "+withoutQuery(address), chromedp.Navigate(address))
}

// Click clicks on an element, once it is visible.
func (p *Page) Click(element string) error {
	return p.do("click "+element, chromedp.Click(chromedp.CSS(element), chromedp.NodeVisible))
}

// Type types into a field, in place of what it held.
func (p *Page) Type(field, text string) error {
	at := chromedp.CSS(field)
	return p.do("type into "+field, chromedp.WaitVisible(at),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).select()", field)), chromedp.SendKeys(at, text))
}

// Text waits until an element is visible, and gives its text.
func (p *Page) Text(element string) (string, error) {
	ctx, done := context.WithTimeout(p.ctx, actionLimit)
	defer done()
	text, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(element), chromedp.NodeVisible))
	if err != nil {
		return "", fmt.Errorf("read %s: %w; %s", element, err, p.describe())
	}
	return strings.TrimSpace(text), nil
}

// Evaluate gives what an expression of JavaScript is on the page as it stands; it waits for nothing.
func Evaluate[T any](p *Page, expression string) (T, error) {
	ctx, done := context.WithTimeout(p.ctx, actionLimit)
	defer done()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		return value, fmt.Errorf("evaluate %s: %w; %s", expression, err, p.describe())
	}
	return value, nil
}

// Address is where the page is, without the query, which may hold a code.
func (p *Page) Address() (string, error) {
	ctx, done := context.WithTimeout(p.ctx, actionLimit)
	defer done()
	address, err := chromedp.Run(ctx, chromedp.Location())
	return withoutQuery(address), err
}

// Picture writes what the window shows into a PNG file.
func (p *Page) Picture(file string) error {
	ctx, done := context.WithTimeout(p.ctx, actionLimit)
	defer done()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("take a picture: %w; %s", err, p.describe())
	}
	return os.WriteFile(file, png, 0o644)
}

// describe is for errors: the address, and the first words of the page.
func (p *Page) describe() string {
	address, err := p.Address()
	if err != nil {
		return "the page does not answer: " + err.Error()
	}
	ctx, done := context.WithTimeout(p.ctx, actionLimit)
	defer done()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText.slice(0, 300) : ""`))
	if err != nil {
		return "at " + address
	}
	return fmt.Sprintf("at %s, which shows %q", address, strings.Join(strings.Fields(text), " "))
}

func withoutQuery(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}
