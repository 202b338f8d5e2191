package server

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"go.yaml.in/yaml/v3"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// openapiSource is the contract, written by hand; tests hold it against the
// routes and their answers.
//
//go:embed openapi.yaml
var openapiSource []byte

// openapiJSON is the contract as it is served.
func openapiJSON() ([]byte, error) {
	var doc any
	if err := yaml.Unmarshal(openapiSource, &doc); err != nil {
		return nil, object.Errorf(object.KindInternal, "the embedded openapi.yaml: %w", err)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, object.Errorf(object.KindInternal, "the embedded openapi.yaml: %w", err)
	}
	return raw, nil
}

// openapi is GET /openapi.json.
func (s *Server) openapi(c *gin.Context) error {
	h := c.Writer.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(s.contract))}
	c.Status(http.StatusOK)
	_, err := c.Writer.Write(s.contract)
	return gone(err)
}
