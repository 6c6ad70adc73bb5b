package testbed

import (
	"context"
	"fmt"
	"path/filepath"
)

// ClockFile says in a container of MongodClock by how much its clock is off, as "+240s" or "-2h"; it is read each second.
const ClockFile = "/etc/clock"

// otherClock puts libfaketime before the parent's program. Clocks that only measure time are left as they are.
func otherClock(context.Context, Progress) (material, error) {
	return material{
		dockerfile: `COPY libfaketime.so /usr/local/lib/
RUN echo +0 > ` + ClockFile + `
ENV LD_PRELOAD=/usr/local/lib/libfaketime.so FAKETIME_TIMESTAMP_FILE=` + ClockFile + ` FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1
`,
		fill: func(ctx context.Context, say Progress) (string, map[string]string, error) {
			if err := install(ctx, say, needProgram{"faketime", "faketime"}); err != nil {
				return "", nil, err
			}
			found, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
			if err != nil || len(found) == 0 {
				return "", nil, fmt.Errorf("no libfaketimeMT.so.1 of Debian's package faketime in /usr/lib/*/faketime")
			}
			return "", map[string]string{"libfaketime.so": found[0]}, nil
		},
	}, nil
}
