package testbed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Pushed is an image to be put into a registry: the program of testbed/pulled as /pulled, which it starts.
type Pushed struct {
	Name     string            // with its tag, such as "app:1"; a tag that is there moves
	Platform string            // "OS/ARCHITECTURE"; empty: linux/amd64. The program is this machine's all the same
	Command  []string          // of the program
	Labels   map[string]string // what sets images of one name apart, for instance
	Ballast  int               // bytes of a second layer, which nothing compresses
}

const (
	typeConfig   = "application/vnd.docker.container.image.v1+json"
	typeLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	typeManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

type blob struct {
	MediaType string `json:"mediaType"`
	Size      int    `json:"size"`
	Digest    string `json:"digest"`
}

// Push puts an image into the registry and gives its digest ("sha256:..."), as a push of the engine's would, without the engine.
func (r *Registry) Push(p Pushed) string {
	r.tb.Helper()
	name, tag, _ := strings.Cut(p.Name, ":")
	layers, diffs, err := pushedLayers(GoBinary(r.tb, "./testbed/pulled"), p.Ballast)
	if err != nil {
		r.tb.Fatalf("test bed: make image %s: %v", p.Name, err)
	}
	platform := p.Platform
	if platform == "" {
		platform = "linux/amd64"
	}
	system, architecture, _ := strings.Cut(platform, "/")
	config, err := json.Marshal(map[string]any{
		"os": system, "architecture": architecture, "created": time.Now().UTC(),
		"config": map[string]any{
			"Entrypoint": []string{"/pulled"}, "Cmd": p.Command, "Labels": p.Labels, "WorkingDir": "/",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		r.tb.Fatalf("test bed: make image %s: %v", p.Name, err)
	}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": r.blob(name, typeConfig, config)}
	var list []blob
	for _, layer := range layers {
		list = append(list, r.blob(name, typeLayer, layer))
	}
	manifest["layers"] = list
	text, err := json.Marshal(manifest)
	if err != nil {
		r.tb.Fatalf("test bed: make image %s: %v", p.Name, err)
	}
	if _, err := r.do(http.MethodPut, "/v2/"+name+"/manifests/"+tag, typeManifest, text); err != nil {
		r.tb.Fatalf("test bed: push %s: %v", p.Name, err)
	}
	return digestOf(text)
}

// Delete takes an image away by its digest, with all of its tags. What an engine has of it stays there.
func (r *Registry) Delete(name, digest string) {
	r.tb.Helper()
	if _, err := r.do(http.MethodDelete, "/v2/"+name+"/manifests/"+digest, "", nil); err != nil {
		r.tb.Fatalf("test bed: delete %s@%s: %v", name, digest, err)
	}
}

// blob uploads one part of an image.
func (r *Registry) blob(name, mediaType string, content []byte) blob {
	r.tb.Helper()
	b := blob{MediaType: mediaType, Size: len(content), Digest: digestOf(content)}
	begun, err := r.do(http.MethodPost, "/v2/"+name+"/blobs/uploads/", "", nil)
	if err != nil {
		r.tb.Fatalf("test bed: push to %s: %v", name, err)
	}
	at, err := url.Parse(begun.Get("Location"))
	if err != nil {
		r.tb.Fatalf("test bed: push to %s: %v", name, err)
	}
	query := at.Query()
	query.Set("digest", b.Digest)
	if _, err := r.do(http.MethodPut, at.Path+"?"+query.Encode(), "application/octet-stream", content); err != nil {
		r.tb.Fatalf("test bed: push to %s: %v", name, err)
	}
	return b
}

// pushedLayers gives the layers, compressed, and the digests of what they are unpacked.
func pushedLayers(program string, ballast int) (layers [][]byte, diffs []string, err error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, nil, err
	}
	files := []struct {
		name    string
		content []byte
	}{{"pulled", content}}
	if ballast > 0 {
		noise := make([]byte, ballast)
		_, _ = rand.Read(noise)
		files = append(files, struct {
			name    string
			content []byte
		}{"ballast", noise})
	}
	for _, file := range files {
		var plain, packed bytes.Buffer
		archive := tar.NewWriter(&plain)
		if err := archive.WriteHeader(&tar.Header{Name: file.name, Mode: 0o755, Size: int64(len(file.content))}); err != nil {
			return nil, nil, err
		}
		if _, err := archive.Write(file.content); err != nil {
			return nil, nil, err
		}
		if err := archive.Close(); err != nil {
			return nil, nil, err
		}
		pack, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		if err != nil {
			return nil, nil, err
		}
		if _, err := pack.Write(plain.Bytes()); err != nil {
			return nil, nil, err
		}
		if err := pack.Close(); err != nil {
			return nil, nil, err
		}
		layers, diffs = append(layers, packed.Bytes()), append(diffs, digestOf(plain.Bytes()))
	}
	return layers, diffs, nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
