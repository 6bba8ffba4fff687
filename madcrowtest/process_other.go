//go:build !unix

package madcrowtest

import "errors"

var errNoSignals = errors.New("this needs a Unix-like system")

func (p *process) signalTerm() error { return errNoSignals }

func (p *process) resume() error { return errNoSignals }

func (p *process) pause() error { return errNoSignals }
