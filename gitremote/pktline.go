package gitremote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// The framing of all of Git's protocols: four hexadecimal digits of length, then the payload.
// Source: gitprotocol-common(5), "pkt-line Format", and gitprotocol-v2(5) for the special packets.

type pktKind int

const (
	pktData  pktKind = iota
	pktFlush         // 0000
	pktDelim         // 0001
	pktEnd           // 0002, response end
)

// maxPkt is the largest packet that the protocol allows, length digits included.
const maxPkt = 65520

var errProtocol = errors.New("the answer is not Git's protocol")

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...))
}

// pktReader reads packets. The bytes of a packet are valid until the next one is read.
type pktReader struct {
	r   io.Reader
	buf []byte
}

func newPktReader(r io.Reader) *pktReader { return &pktReader{r: r} }

// next reads one packet. At a clean end between two packets the error is io.EOF.
func (p *pktReader) next() (pktKind, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	n, ok := parsePktLen(head)
	switch {
	case !ok || n == 3:
		return 0, nil, protocolError("%q where the length of a packet should be", head[:])
	case n == 0:
		return pktFlush, nil, nil
	case n == 1:
		return pktDelim, nil, nil
	case n == 2:
		return pktEnd, nil, nil
	case n > maxPkt:
		return 0, nil, protocolError("a packet of %d bytes", n)
	}
	n -= 4
	if cap(p.buf) < n {
		p.buf = make([]byte, n, max(n, 1024))
	}
	p.buf = p.buf[:n]
	if _, err := io.ReadFull(p.r, p.buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return pktData, p.buf, nil
}

// line reads one packet of text: the newline at its end is cut, and an error that the server sends
// in place of an answer ("ERR ...") becomes an error.
func (p *pktReader) line() (pktKind, []byte, error) {
	kind, data, err := p.next()
	if err != nil || kind != pktData {
		return kind, nil, err
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	if rest, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return 0, nil, serverSaid(string(rest))
	}
	return pktData, data, nil
}

func parsePktLen(head [4]byte) (int, bool) {
	n := 0
	for _, c := range head {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int(c-'a'+10)
		case c >= 'A' && c <= 'F':
			n = n<<4 | int(c-'A'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// pktWriter builds a request in memory.
type pktWriter struct{ bytes.Buffer }

func (w *pktWriter) linef(format string, args ...any) {
	payload := fmt.Sprintf(format, args...)
	fmt.Fprintf(&w.Buffer, "%04x%s", len(payload)+4, payload)
}

func (w *pktWriter) flush() { w.WriteString("0000") }
func (w *pktWriter) delim() { w.WriteString("0001") }
