package madcrowtest

import (
	"os"
	"os/exec"
	"runtime"
	"time"
)

// process is one child. done is closed when it has ended and been reaped.
type process struct {
	pid  int
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; to be read after done
}

// startProcess runs a program whose output is appended to logFile.
func startProcess(binary string, args []string, dir, logFile string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	dieWithParent(cmd)

	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ties the child's life to the thread that started it, so
		// that thread is kept until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = log.Close()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// terminate asks the process to end and waits up to d.
func (p *process) terminate(d time.Duration) {
	_ = p.signalTerm()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
}

// kill ends the process, frozen or not, and waits.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}
