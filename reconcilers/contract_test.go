package reconcilers

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImageTag(t *testing.T) {
	for image, want := range map[string]string{
		"mongo:6.0.27":                          "6.0.27",
		"quay.io/keycloak/keycloak:26.4.7":      "26.4.7",
		"registry:5000/keycloak:26.5@sha256:01": "26.5",
		"registry:5000/keycloak":                "",
		"keycloak@sha256:0123":                  "",
		"mongo":                                 "",
		"":                                      "",
	} {
		require.Equal(t, want, ImageTag(image), image)
	}
}
