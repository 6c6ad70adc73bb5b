package mongo

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func TestImagesThatTheDataTakes(t *testing.T) {
	t.Parallel()
	s := &session{want: want{set: "rs0"}}
	for _, c := range []struct{ fcv, image, reason string }{
		{"6.0", "mongo:6.0.27", ""},
		{"6.0", "mongo:6.0", ""},
		{"6.0", "mongo:7.0.1-jammy", ""},
		{"6.0", "mongo:8.0.1", "UpgradeSkipsMajor"},
		{"6.0", "mongo:5.0.4", "DowngradeRefused"},
		{"4.4", "registry.example:5000/dive/mongod:5.0.4", ""},
		{"4.4", "mongo:6.0.5", "UpgradeSkipsMajor"},
		{"4.2", "mongo:4.4.2", ""},
		{"4.2", "mongo:5.0.4", "UpgradeSkipsMajor"},
		{"9.0", "mongo:10.0.0", ""},
		{"6.0", "mongo:latest", ""},
		{"6.0", "mongo@sha256:0123", ""},
		{"6.0", "registry.example:5000/mongod", ""},
		{"6.0", "mongo:8.0.1@sha256:0123", "UpgradeSkipsMajor"},
		{"6.0", "mongo:2026.11", ""},
	} {
		fcv, _ := parseSeries(c.fcv)
		err := s.mayRun(wantMember{host: "mongodb-1:27017"}, c.image, fcv)
		var blocked *reconcilers.BlockedError
		if errors.As(err, &blocked) {
			require.Equal(t, c.reason, blocked.Reason, c.image)
			require.NotEmpty(t, blocked.Do)
		} else {
			require.NoError(t, err)
			require.Empty(t, c.reason, c.image)
		}
	}
}
