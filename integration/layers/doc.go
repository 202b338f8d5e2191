// Package layers holds the test that imports point down only (DESIGN, section 7).
package layers
