// Package problem turns errors into HTTP answers: problem documents as in RFC
// 9457, with the additional members of FastAPI Madcrow (error, code, message,
// error_id, operation, table).
//
// An error describes its problem by a method, Problem() Problem, found with
// [errors.As]. So this package imports no other package of Madcrow, and all of
// them can use it. A [Writer] has rules for errors without that method. Any other
// error becomes a 500 with a fixed text. The text of an error never reaches the
// client, because it may name keys and addresses. It is logged under the error_id
// that the client receives.
package problem
