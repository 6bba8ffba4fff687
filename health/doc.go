// Package health tells what is known of Redis, without asking it: the
// connection is watched in the background, and this is its last word.
//
// Three questions, three handlers: [Live] (does the process serve?), [Ready]
// (may it be sent requests?) and [Detail] (what is the matter?). None of them
// shows an address unless it is told to.
package health
