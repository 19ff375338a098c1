package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// readFile reads a TOML file as texts by key. An empty path is an empty file, and
// so is one that is missing if a - stands in front, as in systemd's units.
func readFile(path string) (map[string][]string, error) {
	if path == "" {
		return nil, nil
	}
	path, optional := strings.CutPrefix(path, "-")
	var keys map[string]any
	if _, err := toml.DecodeFile(path, &keys); err != nil {
		if optional && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			return nil, fmt.Errorf("configuration file %s can't be read: %w", path, pathError.Err)
		}
		return nil, fmt.Errorf("configuration file %s is not TOML: %w", path, err)
	}
	texts := map[string][]string{}
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		o := find(key)
		if o == nil {
			problems = append(problems, fmt.Errorf("%s: key %q is not known; did you mean %q?", path, key, nearest(key, optionNames())))
			continue
		}
		values, err := valuesOf(o, keys[key])
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s %w", path, key, err))
		}
		texts[key] = values
	}
	return texts, errors.Join(problems...)
}

func optionNames() []string {
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.name
	}
	return names
}

// valuesOf turns a TOML value into the texts that flags would have. A list is
// one for each element where the option repeats, else one joined by commas.
func valuesOf(o *option, value any) ([]string, error) {
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	texts := make([]string, 0, len(list))
	for _, v := range list {
		switch v := v.(type) {
		case string:
			texts = append(texts, v)
		case int64:
			texts = append(texts, strconv.FormatInt(v, 10))
		default:
			return nil, errors.New("is neither a string nor a number nor a list of those")
		}
	}
	if isList && !o.repeat {
		if o.name != "queues" {
			return nil, errors.New("takes one value, not a list")
		}
		return []string{strings.Join(texts, ",")}, nil
	}
	return texts, nil
}

// nearest returns the word of a list that the fewest edits turn into w.
func nearest(w string, words []string) string {
	return slices.MinFunc(words, func(a, b string) int { return distance(w, a) - distance(w, b) })
}

// distance is the Levenshtein distance of two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
