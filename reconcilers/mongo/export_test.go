package mongo

import (
	"slices"
)

// CheckGranted tells of roles of users that no manifest could name.
func (s *Spec) CheckGranted(tell func(string)) {
	for _, u := range s.Users {
		for _, text := range u.Roles {
			if r, ok := parseRole(text, u.database()); !ok || !slices.Contains(s.knownRoles(r.Database), r.Name) {
				tell(text)
			}
		}
	}
}
