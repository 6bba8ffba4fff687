package server

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"slices"
	"sort"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html.tmpl
var docsTemplate string

//go:embed docs.css
var docsStyle string

// docsPage is the documentation: one page without scripts and without anything
// from elsewhere, so it works offline and its policy forbids everything else.
type docsPage struct {
	html   []byte
	policy string
}

type docsView struct {
	Title, Version, Description string
	Style                       template.CSS
	Groups                      []docsGroup
}

type docsGroup struct {
	Tag    string
	Routes []docsRoute
}

type docsRoute struct {
	Method, Path, Summary, ID string
	About                     string
	Parameters                []docsField
	Body                      []docsField
	Answer                    []docsField
	Statuses                  []docsStatus
	Example                   string
}

type docsField struct {
	Name, Place, Type, Notes string
	Required                 bool
}

type docsStatus struct{ Code, Text string }

func renderDocs(api *huma.OpenAPI) (docsPage, error) {
	view := docsView{
		Title: api.Info.Title, Version: api.Info.Version, Description: api.Info.Description,
		Style: template.CSS(docsStyle), //nolint:gosec // our own file
	}
	paths := make([]string, 0, len(api.Paths))
	for p := range api.Paths {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, path := range paths {
		item := api.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Delete} {
			if op != nil {
				view.add(op.Tags[0], docsOf(api, op))
			}
		}
	}
	t, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return docsPage{}, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, view); err != nil {
		return docsPage{}, err
	}
	hash := sha256.Sum256([]byte(docsStyle))
	return docsPage{
		html: b.Bytes(),
		policy: "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-" +
			base64.StdEncoding.EncodeToString(hash[:]) + "'",
	}, nil
}

func (v *docsView) add(tag string, r docsRoute) {
	for i := range v.Groups {
		if v.Groups[i].Tag == tag {
			v.Groups[i].Routes = append(v.Groups[i].Routes, r)
			return
		}
	}
	v.Groups = append(v.Groups, docsGroup{tag, []docsRoute{r}})
}

func docsOf(api *huma.OpenAPI, op *huma.Operation) docsRoute {
	r := docsRoute{Method: op.Method, Path: op.Path, Summary: op.Summary, ID: op.OperationID, About: op.Description}
	for _, p := range op.Parameters {
		f := docsFieldOf(p.Name, p.Schema, p.Required)
		f.Place = p.In
		if p.Description != "" {
			f.Notes = p.Description
		}
		r.Parameters = append(r.Parameters, f)
	}
	if op.RequestBody != nil {
		r.Body = docsFields(api, op.RequestBody.Content["application/json"])
	}
	if ok := op.Responses["200"]; ok != nil {
		r.Answer = docsFields(api, ok.Content["application/json"])
	}
	for code, res := range op.Responses {
		r.Statuses = append(r.Statuses, docsStatus{code, res.Description})
	}
	slices.SortFunc(r.Statuses, func(a, b docsStatus) int { return strings.Compare(a.Code, b.Code) })
	r.Example = docsExample(api, op)
	return r
}

func docsFields(api *huma.OpenAPI, media *huma.MediaType) []docsField {
	if media == nil || media.Schema == nil {
		return nil
	}
	schema := resolve(api, media.Schema)
	names := make([]string, 0, len(schema.Properties))
	for name := range schema.Properties {
		names = append(names, name)
	}
	sort.Strings(names)
	fields := make([]docsField, 0, len(names))
	for _, name := range names {
		fields = append(fields, docsFieldOf(name, resolve(api, schema.Properties[name]), slices.Contains(schema.Required, name)))
	}
	return fields
}

func docsFieldOf(name string, s *huma.Schema, required bool) docsField {
	f := docsField{Name: name, Type: s.Type, Notes: s.Description, Required: required}
	if s.Nullable {
		f.Type += " or null"
	}
	return f
}

func resolve(api *huma.OpenAPI, s *huma.Schema) *huma.Schema {
	for s.Ref != "" {
		s = api.Components.Schemas.SchemaFromRef(s.Ref)
	}
	return s
}

// docsExample is a command that can be pasted.
func docsExample(api *huma.OpenAPI, op *huma.Operation) string {
	path := op.Path
	query := ""
	for _, p := range op.Parameters {
		switch p.In {
		case "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", "example")
		case "query":
			query = "?" + p.Name + "=hello"
		}
	}
	cmd := "curl"
	if op.Method != "GET" {
		cmd += " -X " + op.Method
	}
	if op.Responses["200"].Content["text/event-stream"] != nil {
		cmd += " -N" // shows what comes as it comes
	}
	if op.RequestBody != nil {
		cmd += " -H 'Content-Type: application/json' -d '" + exampleBody(api, op) + "'"
	}
	return cmd + " 'http://localhost:8080" + path + query + "'"
}

func exampleBody(api *huma.OpenAPI, op *huma.Operation) string {
	schema := resolve(api, op.RequestBody.Content["application/json"].Schema)
	body := map[string]any{}
	for name, p := range schema.Properties {
		p = resolve(api, p)
		switch {
		case len(p.Examples) > 0:
			body[name] = p.Examples[0]
		case p.Default != nil:
			body[name] = p.Default
		case p.Type == huma.TypeObject:
			body[name] = map[string]any{"user_id": 1}
		default:
			body[name] = "example"
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return "{}"
	}
	return string(text)
}
