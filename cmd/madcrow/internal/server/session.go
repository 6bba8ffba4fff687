package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/madcrow-go/madcrow/service"
)

// SessionController serves sessions: JSON objects with a lifetime.
type SessionController struct{ svc *service.Service }

// object is a JSON object whose bytes are kept: a float64 could not hold every
// number that a Python program stores.
type object json.RawMessage

// MarshalJSON writes it as it is.
func (o object) MarshalJSON() ([]byte, error) { return o, nil }

// UnmarshalJSON keeps it as it is.
func (o *object) UnmarshalJSON(b []byte) error {
	*o = append((*o)[:0], b...)
	return nil
}

// Schema is for huma: any object.
func (object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

type sessionIDInput struct {
	ID string `path:"session_id" minLength:"1" maxLength:"255"`
}

type setSessionInput struct {
	Body struct {
		ID            string `json:"session_id" minLength:"1" maxLength:"255"`
		Data          object `json:"data" doc:"Any JSON object"`
		ExpireSeconds int64  `json:"expire_seconds,omitempty" default:"3600" minimum:"1" maximum:"3153600000" doc:"Lifetime"`
	}
}

type sessionEntry struct {
	ID     string  `json:"session_id"`
	Data   *object `json:"data" nullable:"true" doc:"null when there is no such session"`
	Exists bool    `json:"exists"`
}

type sessionDeleted struct {
	ID      string `json:"session_id"`
	Deleted bool   `json:"deleted"`
	Message string `json:"message"`
}

func (c SessionController) register(g routes) {
	handle(g, route{
		method: http.MethodPost, summary: "Store a session",
		operation: "set", table: service.TableSessions, errors: []int{http.StatusRequestEntityTooLarge},
	}, c.set)
	handle(g, route{
		method: http.MethodGet, path: "/{session_id}", summary: "Read a session",
		operation: "get", table: service.TableSessions,
	}, c.get)
	handle(g, route{
		method: http.MethodDelete, path: "/{session_id}", summary: "Remove a session",
		operation: "delete", table: service.TableSessions,
	}, c.remove)
}

func (c SessionController) set(ctx context.Context, in *setSessionInput) (*sessionEntry, error) {
	b := &in.Body
	err := c.svc.SetSession(ctx, b.ID, json.RawMessage(b.Data), lifetime(b.ExpireSeconds))
	if err != nil {
		return nil, err
	}
	return &sessionEntry{ID: b.ID, Data: &b.Data, Exists: true}, nil
}

func (c SessionController) get(ctx context.Context, in *sessionIDInput) (*sessionEntry, error) {
	data, found, err := c.svc.GetSession(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &sessionEntry{ID: in.ID, Exists: found}
	if found {
		out.Data = (*object)(&data)
	}
	return out, nil
}

func (c SessionController) remove(ctx context.Context, in *sessionIDInput) (*sessionDeleted, error) {
	existed, err := c.svc.DeleteSession(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &sessionDeleted{ID: in.ID, Deleted: existed, Message: "Session did not exist"}
	if existed {
		out.Message = "Session deleted successfully"
	}
	return out, nil
}
