package desired_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// Public keys of nobody: their private halves were thrown away.
const (
	recipientA  = "age12qu2q6agzhkjj62kptx33zpkwhh7emgna62tjvp93dfu9hh2rusqd73z99"
	recipientB  = "age1gf7dkkaglu86zy68hcamg8vvv5nzm0xvgf5ww7r2mrxc4vskjuds2lv0ak"
	signingKeyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJiML2IK80TMXjII0+1UXjgkyPcmW2sZWkN+WQqlQTP/"
	signingKeyB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKB6NMDnvBCkH1LKaD9e+A59qpZQP2Kh0v6c+X51qiE5"
	rsa1024     = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDakj2FUdM85nr9E6kf1gmp+QN+EV2nH5n2v1/hCoh4FKLV6/6pIOEslyIYaAc/b8k6SleWD7TsyBTRlsGWqZ3gF4T0oHJ8rTucCc+trb0MD4Wo5mzgwjgTs//Cwn9YgSEQsjqpaGu3rqePWrvDpdTg+c6Ee70KDAOVbtHbD5ehdw=="
)

func hostYAML(name, spec string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: %s}\nspec:\n%s", name, spec)
}

func TestHostKeys(t *testing.T) {
	fleet := loadTree(t, map[string]string{"hosts/one.yaml": hostYAML("one", fmt.Sprintf(
		"  machineID: 0123456789abcdef0123456789abcdef\n  recipients: [%s, %s]\n  signingKeys:\n    - %s deu-01 made 2026\n    - %s\n", recipientA, recipientB, signingKeyA, signingKeyB))})
	host := fleet.Hosts["one"]
	require.Equal(t, []string{recipientA, recipientB}, host.Recipients)
	require.Equal(t, []string{signingKeyA, signingKeyB}, host.SigningKeys, "without comments")

	other := loadTree(t, map[string]string{"hosts/one.yaml": hostYAML("one", "  recipients: ["+recipientA+"]\n")})
	require.NotEqual(t, fleet.Digest, other.Digest)
	require.Equal(t, fleet.Instances["deu"].Digest, other.Instances["deu"].Digest, "keys of its host do not change what an instance is")
}

func TestHostKeyMistakes(t *testing.T) {
	const recipientForm = "an age public key is age1 and 58 characters more, as dive-agent enroll prints it; this is none, or a character of it is wrong"
	const keyForm = "an SSH public key stands in one line, such as ssh-ed25519 AAAA..., as dive-agent enroll prints it"
	for name, c := range map[string]struct {
		spec string
		want []string
	}{
		"no age key":         {"  recipients: [age1abc]\n", []string{"5:16: recipients: " + recipientForm}},
		"a wrong character":  {"  recipients:\n    - " + strings.Replace(recipientA, "age1", "age1q", 1)[:62] + "\n", []string{"6:7: recipients: " + recipientForm}},
		"a private identity": {"  recipients: [AGE-SECRET-KEY-1ABC]\n", []string{"5:16: recipients: this is a private key, which must never leave its host: take it out of the repository's history, make other keys (dive-agent enroll --rotate), and list their public halves"}},
		"a private SSH key":  {"  signingKeys:\n    - |\n      -----BEGIN OPENSSH PRIVATE KEY-----\n      abc\n", []string{"6:7: signingKeys: this is a private key, which must never leave its host: take it out of the repository's history, make other keys (dive-agent enroll --rotate), and list their public halves"}},
		"no SSH key":         {"  signingKeys: [ssh-ed25519 AAAA]\n", []string{"5:17: signingKeys: " + keyForm}},
		"two in one":         {"  signingKeys:\n    - |\n      " + signingKeyA + "\n      " + signingKeyB + "\n", []string{"6:7: signingKeys: " + keyForm}},
		"options":            {"  signingKeys: ['no-pty " + signingKeyA + "']\n", []string{"5:17: signingKeys: options have no meaning here: " + keyForm}},
		"weak":               {"  signingKeys: [" + rsa1024 + "]\n", []string{"5:17: signingKeys: an RSA key needs 2048 bits or more"}},
		"not a list":         {"  recipients: " + recipientA + "\n", []string{"5:15: recipients must be a list, not \"" + recipientA[:40] + "...\""}},
		"the former fields":  {"  recipient: " + recipientA + "\n  signingKey: " + signingKeyA + "\n", []string{`5:3: unknown field "recipient", did you mean "recipients"?`, `6:3: unknown field "signingKey", did you mean "signingKeys"?`}},
		"twice":              {"  recipients: [" + recipientA + ",\n    " + recipientA + "]\n  signingKeys:\n    - " + signingKeyA + "\n    - " + signingKeyA + " another comment\n", []string{"6:5: recipients: this key stands twice, first at line 5", "9:7: signingKeys: this key stands twice, first at line 8"}},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, line := range c.want {
				want = append(want, "hosts/one.yaml:"+line)
			}
			require.Equal(t, want, problemsIn(t, map[string]string{"hosts/one.yaml": hostYAML("one", c.spec)}))
		})
	}
}

func TestAKeyOfTwoHosts(t *testing.T) {
	spec := "  recipients: [" + recipientA + "]\n  signingKeys: [" + signingKeyA + "]\n"
	require.Equal(t, []string{
		"hosts/two.yaml:5:16: recipients: this key is that of host one already (hosts/one.yaml:5:16); each host has keys of its own, which dive-agent enroll makes on it",
		"hosts/two.yaml:6:17: signingKeys: this key is that of host one already (hosts/one.yaml:6:17); each host has keys of its own, which dive-agent enroll makes on it",
	}, problemsIn(t, map[string]string{"hosts/one.yaml": hostYAML("one", spec), "hosts/two.yaml": hostYAML("two", spec)}))
	require.Empty(t, problemsIn(t, map[string]string{"hosts/one.yaml": hostYAML("one", spec), "hosts/two.yaml": hostYAML("two", "  recipients: ["+recipientB+"]\n  signingKeys: ["+signingKeyB+"]\n")}))
}

func TestHostFileIsReadAsItWasWritten(t *testing.T) {
	want := &desired.Host{Name: "deu-01", MachineID: "00000000000000000000000000000001", Recipients: []string{recipientB, recipientA}, SigningKeys: []string{signingKeyB, signingKeyA}}
	file := desired.HostFile(want, map[string]string{recipientA: "made 2026-11-22", signingKeyA: "made 2026-11-22; take it out"})
	require.Equal(t, "hosts/deu-01.yaml", file.Path)
	dir := t.TempDir()
	got, err := desired.ReadHost(dir, "deu-01")
	require.NoError(t, err)
	require.Nil(t, got, "no such file")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "hosts"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, file.Path), file.Text, 0o600))
	got, err = desired.ReadHost(dir, "deu-01")
	require.NoError(t, err)
	require.NotZero(t, got.Position)
	got.Position = desired.Position{}
	require.Equal(t, want, got)

	require.NoError(t, os.WriteFile(filepath.Join(dir, file.Path), bytes.Replace(file.Text, []byte("age1"), []byte("age2"), 1), 0o600))
	_, err = desired.ReadHost(dir, "deu-01")
	require.ErrorContains(t, err, "hosts/deu-01.yaml:8:7: recipients")
}
