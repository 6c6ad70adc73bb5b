package report

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"dive-agent/state"
)

// outputsFile stands beside the status on its branch; package published has its format.
const outputsFile = "outputs.yaml"

func outputsKey(instance string) string { return state.Key(instance, "outputs", "file") }

// KeepOutputs keeps the document in which an instance publishes outputs. It goes out with every status from then on; the
// caller hands over a status to have it go out now. What leaves the host in it is for the caller to answer for: its values are
// not redacted once more, since what is sealed would not open any more.
func KeepOutputs(tx state.Tx, instance string, content []byte) error {
	return tx.PutValue(outputsKey(instance), content)
}

// addOutputs adds what the instance publishes to the files of its branch, and to the digest of what is pushed.
func (r *Reporter) addOutputs(ctx context.Context, instance string, files map[string][]byte, digest string) (string, error) {
	var content []byte
	err := r.Store.View(ctx, func(reader state.Reader) (err error) {
		content, err = reader.Value(outputsKey(instance))
		return err
	})
	if errors.Is(err, state.ErrNotFound) {
		return digest, nil
	}
	if err != nil {
		return "", err
	}
	files[outputsFile] = content
	sum := sha256.Sum256(append([]byte(digest+"\n"), content...))
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
