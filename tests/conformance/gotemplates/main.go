// What Go's own text/template makes of a template and a device, with the functions that the contract
// names besides Go's. One question as a line of JSON on standard input, one answer out.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type question struct {
	Template string            `json:"template"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
	Strict   bool              `json:"strict"`
}

type answer struct {
	Text  *string `json:"text"`
	Error string  `json:"error,omitempty"`
}

// Of what is no text, these functions make the empty one.
func text(value any) string {
	found, _ := value.(string)
	return found
}

var functions = template.FuncMap{
	"upper": func(value any) string { return strings.ToUpper(text(value)) },
	"lower": func(value any) string { return strings.ToLower(text(value)) },
	"replace": func(old, new string, value any) string {
		return strings.ReplaceAll(text(value), old, new)
	},
	"getOrDefault": func(labels *map[string]string, key, otherwise string) string {
		if value, ok := (*labels)[key]; ok {
			return value
		}
		return otherwise
	},
}

func evaluate(asked question) (string, error) {
	missing := "missingkey=zero"
	if asked.Strict {
		missing = "missingkey=error"
	}
	parsed, err := template.New("t").Funcs(functions).Option(missing).Parse(asked.Template)
	if err != nil {
		return "", err
	}
	metadata := map[string]any{"name": asked.Name, "labels": &asked.Labels}
	var out strings.Builder
	err = parsed.Execute(&out, map[string]any{"metadata": metadata})
	return out.String(), err
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for {
		var asked question
		if in.Decode(&asked) != nil {
			return
		}
		var answered answer
		if made, err := evaluate(asked); err != nil {
			answered.Error = err.Error()
		} else {
			answered.Text = &made
		}
		if out.Encode(answered) != nil {
			os.Exit(1)
		}
	}
}
