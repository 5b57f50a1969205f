// Command health says what GitOps tools make of graphs, with what these tools themselves use: Argo CD's
// Lua interpreter for its health check, kstatus as Flux has it, and Flux' own code for its health checks in CEL.
//
//	health SCRIPT EXPRESSIONS FILE...
//
// Each FILE is an object as YAML, EXPRESSIONS is a list as in spec.healthCheckExprs of a Kustomization. For each
// FILE a row of a Markdown table is printed: its name, Argo CD's health and message, kstatus' status and message,
// the status by the expressions.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: health SCRIPT EXPRESSIONS FILE...")
		os.Exit(2)
	}
	checks, err := read(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintf(os.Stderr, "health: %v\n", err)
		os.Exit(1)
	}
	for _, file := range os.Args[3:] {
		if err := checks.tell(file); err != nil {
			fmt.Fprintf(os.Stderr, "health: %s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

// What the tools are given.
type checks struct {
	script      string
	expressions *cel.StatusEvaluator
}

func read(script, expressions string) (*checks, error) {
	text, err := os.ReadFile(script)
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(expressions)
	if err != nil {
		return nil, err
	}
	var custom []kustomize.CustomHealthCheck
	if err := yaml.UnmarshalStrict(list, &custom); err != nil {
		return nil, fmt.Errorf("%s: %w", expressions, err)
	}
	if len(custom) != 1 || custom[0].Kind != "TaskGraph" {
		return nil, fmt.Errorf("%s: not one check, of TaskGraph", expressions)
	}
	evaluator, err := cel.NewStatusEvaluator(&custom[0].HealthCheckExpressions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expressions, err)
	}
	return &checks{script: string(text), expressions: evaluator}, nil
}

func (c *checks) tell(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		return err
	}
	health, message, err := argocd(c.script, object)
	if err != nil {
		return err
	}
	graph := &unstructured.Unstructured{Object: integers(object).(map[string]any)}
	computed, err := status.Compute(graph)
	if err != nil {
		return err
	}
	evaluated, err := c.expressions.Evaluate(context.Background(), graph)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".yaml")
	row := fmt.Sprintf("| `%s` | %s: %s | %s: %s | %s |", name, health, message, computed.Status, computed.Message, evaluated.Status)
	fmt.Println(strings.ReplaceAll(row, "\n", " "))
	return nil
}

// argocd runs a health check as Argo CD does: Lua 5.1 with the libraries base, package and table (and
// a clock, which no health check of ours asks), the object in the global `obj`.
func argocd(script string, object map[string]any) (health, message string, err error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the check returns %s, not a table", state.Get(-1).Type())
	}
	return state.GetField(answer, "status").String(), state.GetField(answer, "message").String(), nil
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case string:
		return lua.LString(from)
	case float64:
		return lua.LNumber(from)
	case bool:
		return lua.LBool(from)
	default:
		return lua.LNil
	}
}

// integers makes whole numbers what Kubernetes' own reader makes of them.
func integers(from any) any {
	switch from := from.(type) {
	case map[string]any:
		for key, item := range from {
			from[key] = integers(item)
		}
	case []any:
		for place, item := range from {
			from[place] = integers(item)
		}
	case float64:
		if from == float64(int64(from)) {
			return int64(from)
		}
	}
	return from
}
