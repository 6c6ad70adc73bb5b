package source_test

import (
	"testing"

	"dive-agent/source/sourcebench"
)

const benchFiles = 200

func benchBed(b *testing.B) *sourcebench.Bed {
	b.Helper()
	bed, err := sourcebench.New(b.Context(), b.TempDir(), benchFiles)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(bed.Close)
	return bed
}

// BenchmarkPoll gives the CPU of a poll that finds nothing new.
func BenchmarkPoll(b *testing.B) {
	bed := benchBed(b)
	b.ResetTimer()
	used, err := bed.Polls(b.Context(), b.N)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used)/1e6, "cpu-ms/op")
}

// BenchmarkRound gives the median CPU of a whole round.
func BenchmarkRound(b *testing.B) {
	bed := benchBed(b)
	b.ResetTimer()
	used, err := bed.Rounds(b.Context(), b.N)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used)/1e6, "cpu-ms/op")
}
