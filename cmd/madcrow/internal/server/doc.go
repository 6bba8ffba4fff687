// Package server is the HTTP API of madcrow: the routes of the Python
// original, one type a resource, its methods its routes.
package server
