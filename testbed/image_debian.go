package testbed

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// debian makes a minimal Debian of the given release with the packages, imported as one layer. Documentation and
// translations are left out.
func debian(release string, packages ...string) func(context.Context, Progress) (material, error) {
	list := strings.Join(packages, ",")
	return func(context.Context, Progress) (material, error) {
		fill := func(ctx context.Context, say Progress) (string, map[string]string, error) {
			if err := install(ctx, say, needProgram{"mmdebstrap", "mmdebstrap"}); err != nil {
				return "", nil, err
			}
			tar, err := cached(ctx, "debian-"+release+"-"+digest(list)+".tar", func(ctx context.Context, path string) error {
				begin := time.Now()
				say("mmdebstrap %s with %s", release, list)
				_, err := command{name: "mmdebstrap", args: []string{
					"--variant=minbase", "--mode=root", "--format=tar",
					"--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3",
					"--dpkgopt=path-exclude=/usr/share/doc/*",
					"--dpkgopt=path-exclude=/usr/share/locale/*",
					"--include=" + list, release, path,
				}}.run(ctx)
				if err != nil {
					return fmt.Errorf("make a Debian %s: %w", release, err)
				}
				say("mmdebstrap %s: %.1f s", release, time.Since(begin).Seconds())
				return nil
			})
			return tar, nil, err
		}
		return material{
			digest:  digest(release, list, "1"),
			changes: []string{`CMD ["/bin/bash"]`, "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ENV LANG=C.UTF-8"},
			fill:    fill,
		}, nil
	}
}
