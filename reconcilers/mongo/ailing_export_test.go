package mongo

import "time"

// ClocksOff is clocksOff for members a, b, c ... whose clocks are ahead by so many seconds, each asked in the time of a trip.
func ClocksOff(ahead []int, trip time.Duration) map[string]time.Duration {
	var seen []sighting
	for i, by := range ahead {
		one := sighting{member: wantMember{host: string(rune('a' + i))}, ahead: time.Duration(by) * time.Second, trip: trip}
		one.hello.LocalTime = time.Now()
		seen = append(seen, one)
	}
	return clocksOff(seen)
}
