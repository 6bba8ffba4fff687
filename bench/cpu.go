package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// redisCPU is the processor time that the server has used so far, in the
// kernel too.
func (e *environment) redisCPU() (used time.Duration, err error) {
	text, err := e.bare.Do(context.Background(), e.bare.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("INFO cpu: %s: %w", name, err)
			}
			used += time.Duration(seconds * float64(time.Second))
		}
	}
	return used, nil
}

// processCPU is that of this process.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to fail for oneself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
