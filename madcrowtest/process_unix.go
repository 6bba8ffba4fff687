//go:build unix

package madcrowtest

import (
	"errors"
	"syscall"
	"time"
)

func (p *process) signalTerm() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// pause returns when the process is frozen: the signal is delivered some time
// after the call that sends it.
func (p *process) pause() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for range 1000 {
		if isStopped(p.pid) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the process does not stop")
}
