package desired

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

func (l *loader) readHosts() {
	files := l.manifests("hosts", "", true)
	names := slices.Sorted(maps.Keys(files))
	hosts, keys, problems := make([]*Host, len(names)), make([][]hostKey, len(names)), make([]Problems, len(names))
	parallel(len(names), func(i int) { hosts[i], keys[i], problems[i] = l.readHost(names[i], files[names[i]]) })
	owner := map[string]hostKey{}
	for i, name := range names {
		l.fleet.Hosts[name] = hosts[i]
		l.problems = append(l.problems, problems[i]...)
		l.shareNoKey(owner, keys[i])
	}
}

// shareNoKey refuses a key that stands twice: two hosts with one key could open each other's values and sign for each other.
func (l *loader) shareNoKey(owner map[string]hostKey, keys []hostKey) {
	for _, key := range keys {
		first, twice := owner[key.text]
		switch {
		case !twice:
			owner[key.text] = key
		case first.host == key.host:
			l.fail(key.at, "%s: this key stands twice, first at line %d", key.field, first.at.Line)
		default:
			l.fail(key.at, "%s: this key is that of host %s already (%s); each host has keys of its own, which dive-agent enroll makes on it", key.field, first.host, first.at)
		}
	}
}

// hostKey is a public key in a host's file.
type hostKey struct {
	host, field string
	text        string // as it is compared
	at          Position
}

func (l *loader) readHost(name, file string) (*Host, []hostKey, Problems) {
	host := &Host{Name: name, Position: Position{File: file}}
	root, _, problems := l.parse(file)
	if root == nil {
		return host, nil, problems
	}
	host.Position = root.at
	spec, more := l.open(file, root, HostKind, name)
	d := &Decoder{problems: append(problems, more...)}
	var h hostSpec
	d.decodeSpec(spec, &h)
	host.MachineID = h.MachineID
	if h.MachineID != "" && !machineIDPattern.MatchString(h.MachineID) {
		d.Errorf(spec.Get("machineID").Position(), "machineID must be 32 hexadecimal digits, as in /etc/machine-id")
	}
	var keys []hostKey
	read := func(field string, parse func(string) (string, error)) (texts []string) {
		for _, item := range spec.Get(field).Items() {
			if !item.IsScalar() || item.n.tag != "!!str" {
				continue // the decoder has said so
			}
			text, err := parse(item.n.text)
			if err != nil {
				d.Errorf(item.Position(), "%s: %v", field, err)
				continue
			}
			texts, keys = append(texts, text), append(keys, hostKey{name, field, text, item.Position()})
		}
		return texts
	}
	host.Recipients, host.SigningKeys = read("recipients", parseRecipient), read("signingKeys", parseSigningKey)
	return host, keys, d.problems
}

var machineIDPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// errPrivate never repeats what it found.
var errPrivate = errors.New("this is a private key, which must never leave its host: take it out of the repository's history, make other keys (dive-agent enroll --rotate), and list their public halves")

// parseRecipient checks an age X25519 public key, its checksum too.
func parseRecipient(text string) (string, error) {
	if strings.Contains(strings.ToUpper(text), "AGE-SECRET-KEY-") {
		return "", errPrivate
	}
	recipient, err := age.ParseX25519Recipient(text)
	if err != nil {
		return "", errors.New("an age public key is age1 and 58 characters more, as dive-agent enroll prints it; this is none, or a character of it is wrong")
	}
	return recipient.String(), nil
}

// parseSigningKey checks an SSH public key and gives it without its comment.
func parseSigningKey(text string) (string, error) {
	const form = "an SSH public key stands in one line, such as ssh-ed25519 AAAA..., as dive-agent enroll prints it"
	if strings.Contains(text, "PRIVATE KEY") {
		return "", errPrivate
	}
	text = strings.TrimSpace(text)
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	switch {
	case err != nil || strings.Contains(text, "\n"):
		return "", errors.New(form)
	case len(options) > 0:
		return "", errors.New("options have no meaning here: " + form)
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return "", errors.New("this is a certificate: list the key itself")
	}
	if key, ok := key.(ssh.CryptoPublicKey); ok {
		if weak, ok := key.CryptoPublicKey().(*rsa.PublicKey); ok && weak.N.BitLen() < 2048 {
			return "", errors.New("an RSA key needs 2048 bits or more")
		}
	}
	if strings.HasPrefix(key.Type(), "ssh-dss") {
		return "", errors.New("DSA keys are not taken: use ssh-ed25519")
	}
	return key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()), nil
}

// ReadHost reads hosts/<name>.yaml of a repository alone, whatever else is in it; nil when there is none. The error is a Problems.
func ReadHost(dir, name string) (*Host, error) {
	l := newLoader(nil, dir, Options{})
	stop, err := l.openDir()
	if err != nil {
		return nil, err
	}
	defer stop()
	file := "hosts/" + name + ".yaml"
	if _, err := fs.Stat(l.files, file); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	host, _, problems := l.readHost(name, file)
	if len(problems) > 0 {
		return nil, problems.Sort()
	}
	return host, nil
}

// HostFile writes a host's manifest; notes, by key, stand behind the keys as comments.
func HostFile(h *Host, notes map[string]string) File {
	text := fmt.Appendf(nil, "# hosts/%[1]s.yaml, as dive-agent enroll printed it on %[1]s.\napiVersion: %[2]s\nkind: %[3]s\nmetadata: {name: %[1]s}\nspec:\n  machineID: %[4]q\n",
		h.Name, APIVersion, HostKind, h.MachineID)
	list := func(field, what string, keys []string) {
		text = fmt.Appendf(text, "  %s: # %s\n", field, what)
		for _, key := range keys {
			text = fmt.Appendf(text, "    - %s", key)
			if notes[key] != "" {
				text = fmt.Appendf(text, " # %s", notes[key])
			}
			text = append(text, '\n')
		}
	}
	list("recipients", "what is sealed to this host is sealed to each of these", h.Recipients)
	list("signingKeys", "its status is signed by one of these", h.SigningKeys)
	return File{Path: "hosts/" + h.Name + ".yaml", Text: text}
}
