// Package problem turns errors into HTTP answers: problem documents as in RFC
// 9457, which also carry the members that the Python original sends (error,
// code, message, error_id, operation, table).
//
// An error says what its problem is by a method, Problem() Problem, found
// with [errors.As]; so this package knows no other room, and every room can
// use it. A [Writer] has rules for errors that cannot be given that method. Any
// other error becomes a 500 with a fixed text. The text of an
// error never reaches the caller: it may name keys and addresses. It is
// logged, under the error_id that the caller is told.
package problem
