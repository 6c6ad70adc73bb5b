package story

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/browser"
	"dive-agent/testbed/stored"
)

// side is an instance of the demo as people reach it: its frontend, and the realm where they sign in.
type side struct {
	name, host, app, idp string
}

var (
	usaSide = side{"usa", "usa-01", "http://localhost:3000", "http://localhost:8080"}
	deuSide = side{"deu", "deu-01", "http://localhost:3011", "http://localhost:8091"}
)

func (s side) realm() string { return s.idp + "/realms/dive-v3-broker-" + s.name }

func (s side) code() string { return strings.ToUpper(s.name) }

// What the pages of Keycloak and of the frontend have, by CSS selector.
const (
	userField     = "#username"
	passwordField = "#password"
	signInButton  = "#kc-login"
	wrongPassword = "#input-error-username" // which of the two is wrong is not said
	signedIn      = "#signed-in:not([hidden])"
	failed        = "#refused:not([hidden]), #kc-error-message"
	offered       = `[...document.querySelectorAll("a[id^=social-]")].map(a => a.id.slice("social-".length))`
)

// signIns has a person of each side sign in at the other one, in a real browser: the client secrets of both directions have
// crossed sealed. Then one tries a wrong password, and one the name of somebody else.
func (w *world) signIns(ctx context.Context) error {
	b, err := browser.Start(ctx, w.dir, note)
	if err != nil {
		return err
	}
	ways := []struct{ at, of side }{{usaSide, deuSide}, {deuSide, usaSide}}
	for _, way := range ways {
		if err := w.signsIn(ctx, b, way.at, way.of); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	err = w.isRefused(b, usaSide, deuSide)
	if err == nil {
		err = w.isNotTheirs(ctx, b, usaSide, deuSide)
	}
	return errors.Join(err, b.Close())
}

// signsIn has a person of one side sign in at the frontend of the other. The first try may come before the realm that asks has
// taken over the secret that the other one gave it.
func (w *world) signsIn(ctx context.Context, b *browser.Browser, at, of side) error {
	user, password, err := w.testUser(of)
	if err != nil {
		return err
	}
	started := time.Now()
	claims := map[string]string{}
	err = testbed.Until(ctx, 2*time.Minute, time.Second, user+" signs in at "+at.name, func() error {
		page, err := chooseProvider(b, at, of)
		if err != nil {
			return err
		}
		defer page.Close()
		if err := fillIn(page, user, password); err != nil {
			return err
		}
		said, err := page.Text(signedIn + ", " + failed)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(said, "Signed in as") {
			return fmt.Errorf("it ends with %q", said)
		}
		for _, name := range []string{"name", "country", "clearance", "issuer"} {
			if claims[name], err = page.Text("#" + name); err != nil {
				return err
			}
		}
		return w.picture(page, "signed-in-"+at.name)
	})
	if err != nil {
		return err
	}
	if claims["clearance"] == "" || claims["country"] != of.code() || claims["issuer"] != at.realm() {
		return fmt.Errorf("the token of %s at %s does not say what policies ask for: %v", user, at.name, claims)
	}
	note("%s of %s signed in at the frontend of %s through %s-idp: clearance %s, country %s, token by %s",
		user, of.code(), at.code(), of.name, claims["clearance"], claims["country"], claims["issuer"])
	w.saw("a person of "+of.code()+" signs in at "+at.code()+", in a browser", "both ways", time.Minute, time.Since(started))
	return nil
}

// isRefused has somebody try a person's name with a wrong password.
func (w *world) isRefused(b *browser.Browser, at, of side) error {
	user, _, err := w.testUser(of)
	if err != nil {
		return err
	}
	page, err := chooseProvider(b, at, of)
	if err != nil {
		return err
	}
	defer page.Close()
	if err := fillIn(page, user, "not-the-password-of-anybody"); err != nil {
		return err
	}
	said, err := page.Text(wrongPassword)
	if err != nil {
		return fmt.Errorf("a wrong password of %s: %w", user, err)
	}
	where, err := page.Address()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(where, of.realm()+"/") {
		return fmt.Errorf("with a wrong password %s ends at %s", user, where)
	}
	note("%s with a wrong password: %q", user, said)
	return nil
}

// noMoreOffered looks at the hub's sign-in page after DEU has left.
func (w *world) noMoreOffered(ctx context.Context) error {
	b, err := browser.Start(ctx, w.dir, note)
	if err != nil {
		return err
	}
	look := func() error {
		page, err := signInPage(b, usaSide)
		if err != nil {
			return err
		}
		defer page.Close()
		providers, err := browser.Evaluate[[]string](page, offered)
		if err != nil {
			return err
		}
		if slices.Contains(providers, "deu-idp") || !slices.Contains(providers, "fra-idp") {
			return fmt.Errorf("the hub offers to sign in through %s", strings.Join(providers, ", "))
		}
		w.sawText("the hub's sign-in page, after DEU has left", "no deu-idp", strings.Join(providers, ", "))
		return w.picture(page, "sign-in-without-deu")
	}
	return errors.Join(look(), b.Close())
}

// signInPage goes from a side's frontend to the page of its realm where people sign in.
func signInPage(b *browser.Browser, at side) (*browser.Page, error) {
	page, err := b.NewPage()
	if err != nil {
		return nil, err
	}
	err = page.Open(at.app)
	if err == nil {
		err = page.Click("#sign-in")
	}
	if err == nil {
		_, err = page.Text(signInButton)
	}
	if err != nil {
		page.Close()
		return nil, err
	}
	return page, nil
}

// chooseProvider goes on to the sign-in page of the other side.
func chooseProvider(b *browser.Browser, at, of side) (*browser.Page, error) {
	page, err := signInPage(b, at)
	if err != nil {
		return nil, err
	}
	if err := page.Click("#social-" + of.name + "-idp"); err != nil {
		page.Close()
		return nil, err
	}
	return page, nil
}

func fillIn(page *browser.Page, user, password string) error {
	err := page.Type(userField, user)
	if err == nil {
		err = page.Type(passwordField, password)
	}
	if err == nil {
		err = page.Click(signInButton)
	}
	return err
}

// testUser is a person of a side's realm, with the password that the realm was made with.
func (w *world) testUser(of side) (user, password string, err error) {
	secrets, err := stored.Values(w.path(of.host, "state"), of.name)
	if err != nil {
		return "", "", err
	}
	password = secrets["TEST_USER_PASSWORD"]
	if password == "" {
		return "", "", fmt.Errorf("%s has no secret TEST_USER_PASSWORD", of.name)
	}
	return "testuser-" + of.name + "-3", password, nil
}

// picture keeps what a page shows, where pictures were asked for.
func (w *world) picture(page *browser.Page, name string) error {
	if w.pictures == "" {
		return nil
	}
	if err := os.MkdirAll(w.pictures, 0o755); err != nil {
		return err
	}
	file := filepath.Join(w.pictures, name+".png")
	if err := page.Picture(file); err != nil {
		return err
	}
	note("picture %s", file)
	return nil
}
