package keycloak

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStreamTellsCausesNotConsequences(t *testing.T) {
	s := &stream{}
	for _, part := range []string{
		`{"type":"diagnostic","diagnostic":{"severity":"error","summary":"execution halted"}}` + "\n" + `{"type":"diag`,
		`nostic","diagnostic":{"severity":"error","summary":"error sending POST request to /realms: 409 Conflict","address":"keycloak_realm.this"}}` + "\n",
		"not JSON\n" + `{"type":"resource_drift","change":{"resource":{"addr":"keycloak_user.a"},"action":"delete"}}` + "\n",
	} {
		_, err := s.Write([]byte(part))
		require.NoError(t, err)
	}
	told := s.telling()
	require.Len(t, told, 1)
	require.True(t, told[0].conflict())
	require.Equal(t, "keycloak_realm.this: error sending POST request to /realms: 409 Conflict", told[0].String())
	require.Equal(t, map[string]string{"keycloak_user.a": "delete"}, s.drift)
}

// The stream and the state come from outside: whatever stands in them, reading ends without a panic.
func FuzzStream(f *testing.F) {
	f.Add([]byte(`{"type":"apply_complete","hook":{"resource":{"addr":"a.b"},"action":"create","id_key":"id","id_value":"x"}}` + "\n"))
	f.Add([]byte(`{"type":"diagnostic","diagnostic":{"range":{"filename":"a"}}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &stream{heard: func(m message) { _ = m.Diagnostic.String() }}
		half := len(data) / 2
		_, _ = s.Write(data[:half])
		_, _ = s.Write(data[half:])
		for _, d := range s.telling() {
			if strings.Contains(d.String(), "\n") {
				t.Errorf("a diagnostic has more than one line: %q", d.String())
			}
		}
	})
}
