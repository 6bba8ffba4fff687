// Package cli is the command line of madcrow.
package cli
