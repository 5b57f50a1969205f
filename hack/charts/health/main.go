// Command health says what GitOps tools make of graphs, with what these tools themselves use: Argo CD's
// Lua interpreter for the health check in gitops/argocd, and kstatus as Flux has it.
//
//	health SCRIPT FILE...
//
// Each FILE is an object as YAML. For each a row of a Markdown table is printed: the name of the file, Argo CD's
// health and message, kstatus' status and message.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: health SCRIPT FILE...")
		os.Exit(2)
	}
	script, err := os.ReadFile(os.Args[1])
	for _, file := range os.Args[2:] {
		if err == nil {
			err = tell(string(script), file)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "health: %s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func tell(script, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		return err
	}
	health, message, err := argocd(script, object)
	if err != nil {
		return err
	}
	computed, err := status.Compute(&unstructured.Unstructured{Object: integers(object).(map[string]any)})
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".yaml")
	row := fmt.Sprintf("| `%s` | %s: %s | %s: %s |", name, health, message, computed.Status, computed.Message)
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
