# Whether a subject may read a resource: clearance, country and communities of interest.
package dive.authorization

import rego.v1

default allow := false

levels := {"UNCLASSIFIED": 0, "RESTRICTED": 1, "CONFIDENTIAL": 2, "SECRET": 3, "TOP_SECRET": 4}

allow if count(denials) == 0

denials contains "clearance is too low" if {
	levels[input.subject.clearance] < levels[input.resource.classification]
}

denials contains "unknown clearance or classification" if not known_levels

known_levels if {
	levels[input.subject.clearance] >= 0
	levels[input.resource.classification] >= 0
}

denials contains "country is not on the release list" if {
	not input.subject.country in input.resource.releasableTo
}

denials contains "not a member of a community of interest of the resource" if {
	count(input.resource.communities) > 0
	count({c | some c in input.resource.communities; c in input.subject.communities}) == 0
}
