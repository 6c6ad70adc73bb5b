package gitremote

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"
)

func TestReadLsRefs(t *testing.T) {
	const a, b = "1111111111111111111111111111111111111111", "2222222222222222222222222222222222222222"
	for name, test := range map[string]struct {
		in   string
		want map[string]refValue
		err  bool
	}{
		"none":            {"0000", map[string]refValue{}, false},
		"one":             {pkt(a+" refs/heads/main\n") + "0000", map[string]refValue{"refs/heads/main": {hash: plumbing.NewHash(a)}}, false},
		"peeled":          {pkt(a+" refs/tags/v1 peeled:"+b+"\n") + "0000", map[string]refValue{"refs/tags/v1": {plumbing.NewHash(a), plumbing.NewHash(b)}}, false},
		"unborn":          {pkt("unborn HEAD symref-target:refs/heads/main\n") + "0000", map[string]refValue{}, false},
		"no end":          {pkt(a + " refs/heads/main\n"), nil, true},
		"cut":             {pkt(a + " refs/heads/main\n")[:20], nil, true},
		"empty":           {"", nil, true},
		"html":            {"<!DOCTYPE html>", nil, true},
		"no name":         {pkt(a+"\n") + "0000", nil, true},
		"no hash":         {pkt("zzzz refs/heads/main\n") + "0000", nil, true},
		"sha256":          {pkt(strings.Repeat("1", 64)+" refs/heads/main\n") + "0000", nil, true},
		"error":           {pkt("ERR access denied") + "0000", nil, true},
		"length of 3":     {"0003", nil, true},
		"length too long": {"ffff" + strings.Repeat("x", 65535), nil, true},
		"delimiter":       {"0001", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readLsRefs(newPktReader(strings.NewReader(test.in)))
			require.Equal(t, test.err, err != nil, "%v", err)
			require.Equal(t, test.want, got)
		})
	}
}

func pkt(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

func TestPushReports(t *testing.T) {
	const ref = plumbing.ReferenceName("refs/heads/a")
	band := func(n byte, s string) string { return pkt(string(n) + s) }
	for name, test := range map[string]struct {
		in       string
		accepted bool
		reason   string
		err      error
	}{
		"accepted":            {band(1, pkt("unpack ok\n")+pkt("ok refs/heads/a\n")+"0000") + "0000", true, "", nil},
		"accepted, bare":      {pkt("unpack ok\n") + pkt("ok refs/heads/a\n") + "0000", true, "", nil},
		"accepted, in pieces": {band(1, "000eunpa") + band(2, "hello\n") + band(1, "ck ok\n"+pkt("ok refs/heads/a\n")+"0000") + "0000", true, "hello", nil},
		"another ref":         {band(1, pkt("unpack ok\n")+pkt("ok refs/heads/b\n")+"0000") + "0000", false, "", nil},
		"no ref":              {band(1, pkt("unpack ok\n")+"0000") + "0000", false, "", nil},
		"refused":             {band(1, pkt("unpack ok\n")+pkt("ng refs/heads/a failed to update ref\n")+"0000") + "0000", false, "failed to update ref", nil},
		"refused without why": {band(1, pkt("unpack ok\n")+pkt("ng refs/heads/a\n")+"0000") + "0000", false, "refused", nil},
		"refused with ok":     {band(1, pkt("unpack ok\n")+pkt("ng refs/heads/a ok\n")+"0000") + "0000", false, "refused", nil},
		"unpack failed":       {band(1, pkt("unpack index-pack abnormal exit\n")+pkt("ok refs/heads/a\n")+"0000") + "0000", false, "unpack: index-pack abnormal exit", nil},
		"flush alone":         {"0000", false, "", ErrEmptyAnswer},
		"empty band":          {band(2, "only words") + "0000", false, "", ErrEmptyAnswer},
		"empty report":        {band(1, "0000") + "0000", false, "", ErrEmptyAnswer},
		"report without end":  {band(1, pkt("unpack ok\n")+pkt("ok refs/heads/a\n")) + "0000", false, "", errProtocol},
		"html":                {"<html>", false, "", errProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := readPushReport(newPktReader(strings.NewReader(test.in)))
			if test.err != nil {
				require.ErrorIs(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.accepted, report.accepted(ref))
			require.Equal(t, test.reason, report.reason(ref))
		})
	}
}

// sealed makes a pack of entries: header and checksum are right.
func sealed(count uint32, entries []byte) []byte {
	p := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("PACK"), 2), count)
	p = append(p, entries...)
	sum := sha1.Sum(p)
	return append(p, sum[:]...)
}

// realPack is what git packs of a small history with deltas of both sorts.
func realPack(t testing.TB, refDeltas bool) ([]byte, int) {
	t.Helper()
	dir := t.TempDir()
	git := func(stdin string, args ...string) []byte {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
		out, err := cmd.Output()
		require.NoError(t, err)
		return out
	}
	git("", "init", "--quiet", "--bare", ".")
	var in strings.Builder
	for i := range 10 {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter a <a@example.org> %d +0000\ndata 1\nx\n", 1_700_000_000+i)
		body := strings.Repeat("a line that is the same each time\n", 200) + fmt.Sprintf("and number %d\n", i)
		fmt.Fprintf(&in, "M 100644 inline dir/file\ndata %d\n%s\n", len(body), body)
	}
	git(in.String(), "fast-import", "--quiet")
	args := []string{"pack-objects", "--stdout", "--revs", "--all", "-q", "--window=20"}
	if !refDeltas {
		args = append(args, "--delta-base-offset")
	}
	pack := git("", args...)
	count := strings.Count(string(git("", "rev-list", "--objects", "--all")), "\n")
	return pack, count
}

func TestReadPackOfGit(t *testing.T) {
	for _, refDeltas := range []bool{false, true} {
		pack, count := realPack(t, refDeltas)
		o, err := readPack(pack, Limits{}.withDefaults())
		require.NoError(t, err)
		require.Equal(t, count, o.Count)
		require.EqualValues(t, len(pack), o.Wire)

		flipped := bytes.Clone(pack)
		flipped[len(flipped)/2] ^= 1
		_, err = readPack(flipped, Limits{}.withDefaults())
		require.ErrorIs(t, err, errProtocol)
		for _, n := range []int{0, 11, 31, len(pack) / 2, len(pack) - 1} {
			_, err = readPack(pack[:n], Limits{}.withDefaults())
			require.ErrorIs(t, err, errProtocol)
		}
	}
}

func TestPackLimits(t *testing.T) {
	pack, _ := realPack(t, false)
	for name, limits := range map[string]Limits{
		"objects":  {Objects: 5},
		"object":   {Object: 1000},
		"inflated": {Inflated: 10_000},
	} {
		_, err := readPack(pack, limits.withDefaults())
		var limit *LimitError
		require.ErrorAs(t, err, &limit, name)
	}
	_, err := readPack(sealed(1<<31, nil), Limits{}.withDefaults())
	require.ErrorAs(t, err, new(*LimitError), "a count that is not there")
}

// TestDeltaBomb: a few bytes of instructions that copy the base again and again.
func TestDeltaBomb(t *testing.T) {
	base := make([]byte, 1<<16)
	delta := varint(uint64(len(base)))
	delta = append(delta, varint(1<<30)...)
	for range 1 << 14 {
		delta = append(delta, 0x80|0x40, 1) // copy 0x10000... of size 0x10000
	}
	objects := NewObjects()
	objects.Put(plumbing.BlobObject, base)
	one, err := encodePack(objects)
	require.NoError(t, err)
	entries := one[12 : len(one)-20]
	at := len(entries)
	entries = append(entries, byte(plumbing.OFSDeltaObject)<<4|byte(len(delta)&15)|0x80)
	for n := len(delta) >> 4; ; n >>= 7 {
		if n < 0x80 {
			entries = append(entries, byte(n))
			break
		}
		entries = append(entries, byte(n&0x7f)|0x80)
	}
	entries = append(entries, offset(at)...)
	entries = append(entries, deflate(t, delta)...)
	_, err = readPack(sealed(2, entries), Limits{}.withDefaults())
	var limit *LimitError
	require.ErrorAs(t, err, &limit)
	require.Equal(t, "bytes in one object", limit.What)
}

func varint(n uint64) []byte { return binary.AppendUvarint(nil, n) }

func offset(n int) []byte {
	out := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		out = append([]byte{byte(n&0x7f) | 0x80}, out...)
	}
	return out
}

func FuzzPack(f *testing.F) {
	for _, refDeltas := range []bool{false, true} {
		pack, count := realPack(f, refDeltas)
		f.Add(uint32(count), pack[12:len(pack)-20])
	}
	limits := Limits{Inflated: 1 << 20, Object: 1 << 18, Objects: 1000}.withDefaults()
	f.Fuzz(func(t *testing.T, count uint32, entries []byte) {
		o, err := readPack(sealed(count, entries), limits)
		if err != nil {
			return
		}
		if o.Bytes > limits.Inflated || int64(o.Count) > limits.Objects {
			t.Fatalf("%d objects of %d bytes are over the limits", o.Count, o.Bytes)
		}
		for _, h := range o.order {
			e, err := o.store.EncodedObject(plumbing.AnyObject, h)
			if err != nil || e.Size() > limits.Object {
				t.Fatalf("object %s: %v", h, err)
			}
		}
	})
}

func FuzzAnswers(f *testing.F) {
	pack, _ := realPack(f, false)
	f.Add([]byte(pkt("1111111111111111111111111111111111111111 refs/heads/main peeled:2222222222222222222222222222222222222222\n") + "0000"))
	f.Add([]byte(pkt("# service=git-upload-pack\n") + "0000" + pkt("1111111111111111111111111111111111111111 HEAD\x00side-band-64k ofs-delta\n") + pkt("1111111111111111111111111111111111111111 refs/tags/a^{}\n") + "0000"))
	f.Add([]byte(pkt("version 2\n") + pkt("ls-refs=unborn\n") + "0000"))
	f.Add([]byte(pkt("shallow-info\n") + pkt("shallow 1111111111111111111111111111111111111111") + "0001" + pkt("packfile\n") + pkt("\x01"+string(pack[:100])) + "0000"))
	f.Add([]byte(pkt("NAK\n") + pkt("\x01PACK") + pkt("\x02progress") + "0000"))
	f.Add([]byte(pkt("\x01"+pkt("unpack ok\n")+pkt("ok refs/heads/a\n")+"0000") + "0000"))
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func() *pktReader {
			return newPktReader(&limitedReader{r: bytes.NewReader(in), limit: 1 << 16})
		}
		refs, err := readLsRefs(read())
		if err == nil && len(refs) > len(in)/41 {
			t.Fatal("more refs than fit")
		}
		if _, err := readAdvertisement(read()); err == nil && len(in) == 0 {
			t.Fatal("nothing is no advertisement")
		}
		for _, v2 := range []bool{true, false} {
			if a, err := readPackAnswer(read(), v2, !v2); err == nil && a.pack.Len() == 0 {
				t.Fatal("an answer without a pack was taken")
			}
		}
		report, err := readPushReport(read())
		if err == nil && report.accepted("refs/heads/a") && !bytes.Contains(in, []byte("ok ")) {
			t.Fatal("a report without ok was taken for success")
		}
		if err != nil && errors.Is(err, ErrEmptyAnswer) && bytes.Contains(in, []byte("unpack ok")) && report != nil {
			t.Log("a report in an empty answer")
		}
	})
}

func TestConfigurations(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for name, test := range map[string]struct {
		cfg  Config
		want string // part of the error; empty: none
	}{
		"empty":                   {Config{}, "URL is empty"},
		"path":                    {Config{URL: "/srv/fleet.git"}, ""},
		"relative path":           {Config{URL: "fleet.git"}, "scheme"},
		"https":                   {Config{URL: "https://example.org/fleet.git"}, ""},
		"http":                    {Config{URL: "http://example.org/fleet.git", AllowLoopbackHTTP: true}, "plain http"},
		"http on loopback":        {Config{URL: "http://127.0.0.1/fleet.git"}, "plain http"},
		"http on loopback, asked": {Config{URL: "http://[::1]:8080/fleet.git", AllowLoopbackHTTP: true}, ""},
		"name like loopback":      {Config{URL: "http://127.0.0.1.example.org/f.git", AllowLoopbackHTTP: true}, "plain http"},
		"password in URL":         {Config{URL: "https://u:hunter22@example.org/f.git"}, "contains a password"},
		"unreadable URL":          {Config{URL: "https://u:hunter22@exa mple.org/%zz"}, "cannot be read"},
		"no repository":           {Config{URL: "https://example.org/"}, "no repository"},
		"option as host":          {Config{URL: "ssh://-oProxyCommand=x/f.git"}, "no usable host"},
		"ftp":                     {Config{URL: "ftp://example.org/f.git"}, `"ftp"`},
		"token and password":      {Config{URL: "https://example.org/f.git", Username: "u", Password: "p", Token: "t"}, "keep one"},
		"password alone":          {Config{URL: "https://example.org/f.git", Password: "p"}, "user name"},
		"half a certificate":      {Config{URL: "https://example.org/f.git", ClientCertFile: none}, "both"},
		"no authority":            {Config{URL: "https://example.org/f.git", CAFile: none}, "certificate authority"},
		"ssh without identity":    {Config{URL: "git@example.org:fleet.git"}, "identity"},
		"ssh without known hosts": {Config{URL: "ssh://example.org/f.git", IdentityFile: none}, "known_hosts"},
		"proxy for ssh":           {Config{URL: "ssh://example.org/f.git", Proxy: "http://proxy:3128"}, "socks5"},
		"proxy that is none":      {Config{URL: "https://example.org/f.git", Proxy: "ftp://proxy"}, "proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := New(test.cfg)
			if test.want == "" {
				require.NoError(t, err)
				r.Close()
				return
			}
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "hunter22")
			kind, _ := KindOf(err)
			require.Equal(t, Misconfigured, kind)
		})
	}
}

func TestSecretsStayOut(t *testing.T) {
	cfg := Config{URL: "https://example.org/fleet.git?private_token=hunter22", Username: "u", Password: "hunter33"}
	for _, s := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v %#v %s", cfg, cfg, cfg)} {
		require.NotContains(t, s, "hunter")
	}
	r, err := New(cfg)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, "https://example.org/fleet.git", r.String())
	require.NoError(t, r.authorize(map[string][]string{}))
	require.Equal(t, "it says *** and *** at ***", r.scrub("it\nsays hunter33 and dTpodW50ZXIzMw== at hunter22"))
	require.Equal(t, "a b", r.scrub("a\x1b\x00 \r\n b"))
	require.LessOrEqual(t, len(r.scrub(strings.Repeat("é", 1000))), maxErrorText+3)
}

func deflate(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}
