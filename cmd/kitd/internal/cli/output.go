package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// format is how a noun is printed.
type format string

const (
	asTable format = "table"
	asJSON  format = "json"
	asLines format = "jsonl"
)

var formats = []string{string(asTable), string(asJSON), string(asLines)}

// Set implements pflag.Value.
func (f *format) Set(text string) error {
	if !slices.Contains(formats, text) {
		return fmt.Errorf("is none of %s", strings.Join(formats, ", "))
	}
	*f = format(text)
	return nil
}

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return strings.Join(formats, "|") }

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command) *format {
	f := asTable
	cmd.Flags().VarP(&f, "output", "o", "form of the output")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return &f
}

// document is a JSON object as kitd sent it, with the fields that this version
// does not know.
type document struct {
	raw []byte
	// rows is the field that is a list of rows; "" where the document is one row.
	rows string
}

// print writes the document in one of the JSON forms. jsonl is a line a row, each
// with the document's version in front.
func (d document) print(out io.Writer, f format) error {
	var b bytes.Buffer
	if f == asJSON {
		if err := json.Indent(&b, bytes.TrimSpace(d.raw), "", "  "); err != nil {
			return fmt.Errorf("kitd's answer is not JSON: %w", err)
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(out)
		return err
	}
	rows := []json.RawMessage{d.raw}
	version := ""
	if d.rows != "" {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(d.raw, &fields); err != nil {
			return fmt.Errorf("kitd's answer is not JSON: %w", err)
		}
		if err := json.Unmarshal(fields[d.rows], &rows); err != nil {
			return fmt.Errorf("kitd's answer has no list %q: %w", d.rows, err)
		}
		version = `{"version":` + string(fields["version"]) + ","
	}
	for _, row := range rows {
		var line bytes.Buffer
		if err := json.Compact(&line, row); err != nil {
			return fmt.Errorf("kitd's answer is not JSON: %w", err)
		}
		b.WriteString(version)
		b.Write(line.Bytes()[min(len(version), 1):])
		b.WriteByte('\n')
	}
	_, err := b.WriteTo(out)
	return err
}

// table aligns columns by their widest cell. A column whose cells are all numbers
// is aligned to the right.
type table struct {
	rows [][]string // the first is the heading
}

func newTable(heading ...string) *table { return &table{rows: [][]string{heading}} }

// add appends a row; the empty cell prints as "-".
func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = fmt.Sprint(c); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table.
func (t *table) print(out io.Writer) error {
	columns := len(t.rows[0])
	width, number := make([]int, columns), make([]bool, columns)
	for c := range columns {
		numbers, others := 0, 0
		for r, row := range t.rows {
			width[c] = max(width[c], utf8.RuneCountInString(row[c]))
			switch {
			case r == 0 || row[c] == "-":
			case isNumber(row[c]):
				numbers++
			default:
				others++
			}
		}
		number[c] = numbers > 0 && others == 0
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for c, cell := range row {
			pad := strings.Repeat(" ", width[c]-utf8.RuneCountInString(cell))
			if c > 0 {
				line.WriteString("  ")
			}
			if number[c] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func isNumber(cell string) bool {
	_, err := strconv.ParseFloat(cell, 64)
	return err == nil
}

// lines writes names and values, a line each.
func (t *table) lines(out io.Writer) error {
	width := 0
	for _, row := range t.rows {
		width = max(width, utf8.RuneCountInString(row[0]))
	}
	var b strings.Builder
	for _, row := range t.rows {
		b.WriteString(row[0] + strings.Repeat(" ", width-utf8.RuneCountInString(row[0])) + "  " + strings.Join(row[1:], "  ") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
