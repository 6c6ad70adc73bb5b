package secrets

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// askLimit is how long one server may take for one look at all secrets that come from it.
const askLimit = 10 * time.Second

// maxAnswer is more than a secret and what stands around it.
const maxAnswer = 2 << 20

// asker speaks HTTP to one server of secrets.
type asker struct {
	client *http.Client
	down   error // the server could not be reached in this look: it is not asked for the rest
	until  context.Context
}

// newAsker trusts the system's authorities, or those of a file alone. A server that redirects is not followed: what opens it
// would be sent to another one.
func newAsker(ctx context.Context, caFile string) (*asker, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 5 * time.Second, DisableKeepAlives: true}
	if caFile != "" {
		text, err := readFile(caFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	never := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &asker{client: &http.Client{Transport: transport, CheckRedirect: never}, until: ctx}, nil
}

// ask sends one request and reads the answer into out, whatever its status.
func (a *asker) ask(method, address string, header http.Header, body io.Reader, out any) (status int, err error) {
	if a.down != nil {
		return 0, a.down
	}
	request, err := http.NewRequestWithContext(a.until, method, address, body)
	if err != nil {
		return 0, errors.New("its address is no URL")
	}
	request.Header = header
	answer, err := a.client.Do(request)
	if err != nil {
		a.down = plainNet(err)
		return 0, a.down
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		a.down = plainNet(err)
		return 0, a.down
	case len(content) > maxAnswer:
		return 0, fmt.Errorf("it answers with more than %d bytes", maxAnswer)
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		to, _ := url.Parse(answer.Header.Get("Location"))
		if to == nil {
			to = &url.URL{}
		}
		return 0, fmt.Errorf("it sends on to %s://%s, which is not followed: name that one", to.Scheme, to.Host)
	}
	if json.Unmarshal(content, out) != nil && answer.StatusCode < 300 {
		return 0, errors.New("it does not answer as such a server: not JSON")
	}
	return answer.StatusCode, nil
}

// plainNet says why a server could not be reached in words that are the same each time: no local ports.
func plainNet(err error) error {
	var (
		timeout interface{ Timeout() bool }
		op      *net.OpError
		dns     *net.DNSError
		request *url.Error
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("its name cannot be resolved: %s", dns.Err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("it does not answer in time")
	case errors.As(err, &op):
		return fmt.Errorf("it cannot be reached: %w", op.Err)
	case errors.As(err, &request):
		return fmt.Errorf("it cannot be asked: %w", request.Err)
	}
	return err
}

// shortened is what a server says, as far as it fits into a line.
func shortened(text string) string {
	const most = 200
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
