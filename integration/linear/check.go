package linear

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Check judges every group, each for at most limit. A group that is not
// linearizable, or could not be judged in time, is an error; then the whole
// history is written below dir, and for each such group a page that shows it.
func (h *History) Check(dir string, limit time.Duration) error {
	groups := h.Groups()
	var errs []error
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		ops := groups[group]
		model := ofNames()
		if ops[0].Input.(Input).Verb == Append || ops[0].Input.(Input).Verb == Read {
			model = ofLog()
		}
		result, info := porcupine.CheckOperationsVerbose(model, ops, limit)
		if result == porcupine.Ok {
			continue
		}
		errs = append(errs, h.show(dir, group, model, info, result))
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(append(errs, h.save(filepath.Join(dir, "history.ndjson")))...)
}

// show writes the page of a group and says what is wrong with it.
func (h *History) show(dir, group string, model porcupine.Model, info porcupine.LinearizationInfo, result porcupine.CheckResult) error {
	verdict := fmt.Errorf("group %s is not linearizable", group)
	if result == porcupine.Unknown {
		verdict = fmt.Errorf("group %s could not be judged in time", group)
	}
	var notes []porcupine.Annotation
	for _, n := range h.Notes() {
		notes = append(notes, porcupine.Annotation{Tag: "nemesis", Start: n.From, End: n.To, Description: n.Text})
	}
	info.AddAnnotations(notes)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return errors.Join(verdict, err)
	}
	page := filepath.Join(dir, strings.ReplaceAll(group, "/", "_")+".html")
	if err := porcupine.VisualizePath(model, info, page); err != nil {
		return errors.Join(verdict, err)
	}
	return fmt.Errorf("%w: see %s", verdict, page)
}

func (h *History) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(h.Write(f), f.Close())
}
