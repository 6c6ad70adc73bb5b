// Package systemd holds what makes dive-agent a service of a Linux host: the unit, its account, its folders and its
// environment file, installed by install.sh. It has no code; its tests run the unit under a real systemd.
package systemd
