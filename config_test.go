package bucketdb

import (
	"strings"
	"testing"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func TestDefaultConfig(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.ChunkSize != 4<<20 || c.MaxObjectSize != 5<<30 || c.StoragePath != "./chunks" || c.MetadataPath != "./metadata" || c.CompressionType != "snappy" || c.MetadataReserve != 512<<20 {
		t.Errorf("the defaults are %+v", c)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"ChunkSize":            func(c *Config) { c.ChunkSize = 1 },
		"MaxObjectSize":        func(c *Config) { c.MaxObjectSize = 0 },
		"Partitions":           func(c *Config) { c.Partitions = MaxPartitions + 1 },
		"MetadataPath":         func(c *Config) { c.MetadataPath = "" },
		"StoragePath":          func(c *Config) { c.StoragePath = "" },
		"CompressionType":      func(c *Config) { c.CompressionType = "lz4" },
		"ExtraStoragePaths[1]": func(c *Config) { c.ExtraStoragePaths = []string{"a", c.StoragePath + "/x"} },
		"(/":                   func(c *Config) { c.MetadataPath = "." },
		"Cluster.NodeID":       func(c *Config) { c.Cluster.NodeID = "a b" },
		"Cluster.Join":         func(c *Config) { c.Cluster.HTTPAddr, c.Cluster.Join = ":8080", []string{"n2"} },
		"Cluster.HTTPAddr is":  func(c *Config) { c.Cluster.HTTPAddr = "8080" },
		"Cluster.HTTPAddr":     func(c *Config) { c.Cluster.Join = []string{"n2:8080"} },
		"give one of them": func(c *Config) {
			c.Cluster.Bootstrap, c.Cluster.HTTPAddr, c.Cluster.Join = true, ":8080", []string{"n2:8080"}
		},
		"Cluster.ReplicationFactor": func(c *Config) { c.Cluster.ReplicationFactor = -1 },
		"Cluster.SecretFile":        func(c *Config) { c.Cluster.Secret, c.Cluster.SecretFile = "a", "b" },
	} {
		c := DefaultConfig()
		change(c)
		err := c.Validate()
		if !object.IsKind(err, object.KindInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestSlice(t *testing.T) {
	for _, c := range []struct {
		start, end, size, off, n int64
		kind                     object.Kind
	}{
		{0, 0, 10, 0, 10, 0},
		{0, 0, 0, 0, 0, 0},
		{0, 5, 10, 0, 5, 0},
		{3, 7, 10, 3, 4, 0},
		{3, 0, 10, 3, 7, 0},
		{3, 99, 10, 3, 7, 0},
		{-4, 0, 10, 6, 4, 0},
		{-40, 0, 10, 0, 10, 0},
		{10, 0, 10, 0, 0, object.KindRange},
		{0, 1, 0, 0, 0, object.KindRange},
		{5, 5, 10, 0, 0, object.KindInvalid},
		{0, -1, 10, 0, 0, object.KindInvalid},
		{-4, 8, 10, 0, 0, object.KindInvalid},
	} {
		off, n, err := (&GetObjectOptions{RangeStart: c.start, RangeEnd: c.end}).slice(c.size)
		if off != c.off || n != c.n || (err != nil) != (c.kind != 0) || err != nil && !object.IsKind(err, c.kind) {
			t.Errorf("[%d, %d) of %d is %d+%d, %v", c.start, c.end, c.size, off, n, err)
		}
	}
}
