// Command queries prints the queries of Grafana's dashboards as recording rules, which promtool can
// check. Grafana's own variables are given values.
//
//	queries DASHBOARD.json...
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

type rule struct {
	Record string `json:"record"`
	Expr   string `json:"expr"`
}

func main() {
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*")
	rules := []rule{}
	for _, file := range os.Args[1:] {
		text, err := os.ReadFile(file)
		var read dashboard
		if err == nil {
			err = json.Unmarshal(text, &read)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "queries: %s: %v\n", file, err)
			os.Exit(1)
		}
		for _, panel := range read.Panels {
			for _, target := range panel.Targets {
				name := fmt.Sprintf("query:%d", len(rules))
				rules = append(rules, rule{Record: name, Expr: variables.Replace(target.Expr)})
			}
		}
	}
	// JSON is YAML
	answer, _ := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboards", "rules": rules}}})
	fmt.Println(string(answer))
}
