// Package bench measures what the project promises to cost: CPU, memory, size and time, on the test bed's real engines
// with the agent's stripped program. `make bench` runs it. It judges each figure by its bar and changes nothing else; it must
// not know how the rooms it measures do their work.
//
// The machine that it runs on may be busy with other things. So what can be is measured as CPU time, or as a ratio to
// a baseline measured in turn with it, and the rest as the median of several times.
package bench
