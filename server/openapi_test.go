package server

import (
	"context"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// loadContract reads and validates the document that is served.
func loadContract(t *testing.T) *openapi3.T {
	t.Helper()
	raw, err := openapiJSON()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// documentPath is gin's path in the form of the document.
func documentPath(ginPath string) string {
	return regexp.MustCompile(`[:*]([a-z]+)`).ReplaceAllString(ginPath, "{$1}")
}

func TestEveryRouteIsDocumentedAndTheOtherWayRound(t *testing.T) {
	doc := loadContract(t)
	s, err := New(nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var routes, documented []string
	for _, r := range s.engine.Routes() {
		routes = append(routes, r.Method+" "+documentPath(r.Path))
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	sort.Strings(routes)
	sort.Strings(documented)
	if a, b := strings.Join(routes, "\n"), strings.Join(documented, "\n"); a != b {
		t.Errorf("routes:\n%s\n\ndocumented:\n%s", a, b)
	}
}
