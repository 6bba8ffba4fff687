// Package health reports the state of Redis without sending a command: the prober
// watches the connections in the background, and health reports its last result.
//
// There are three handlers: [Live] (the process serves), [Ready] (the process may
// receive requests) and [Detail] (the state of Redis and of services). None of
// them shows an address unless the options say so.
package health
