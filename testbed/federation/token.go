package federation

import (
	"time"

	"dive-agent/report"
)

// TokenEnd is when the token ends that a spoke has, by its status; zero: it has none.
func TokenEnd(s *report.Status) time.Time {
	for _, component := range s.Components {
		if text, ok := component.Values["tokenExpires"].(string); ok {
			if end, err := time.Parse(time.RFC3339, text); err == nil {
				return end
			}
		}
	}
	return time.Time{}
}
