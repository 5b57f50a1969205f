// Command schemas makes the JSON schemas that kubeconform checks manifests by, from what says how
// objects look: the OpenAPI document of Kubernetes, and CustomResourceDefinitions.
//
//	schemas DIR FILE...
//
// Each FILE is an OpenAPI (v2) document as JSON, or CRDs as YAML. Below DIR each kind gets the file
// GROUP/KIND_VERSION.json (of the group "v1": those without one). They are strict: a field that is
// not known is refused, as the API server does with fieldValidation=Strict.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	yaml3 "go.yaml.in/yaml/v3"
)

type object = map[string]any

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: schemas DIR FILE...")
		os.Exit(2)
	}
	for _, file := range os.Args[2:] {
		if err := convert(os.Args[1], file); err != nil {
			fmt.Fprintf(os.Stderr, "schemas: %s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func convert(dir, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if filepath.Ext(file) == ".json" {
		var document struct{ Definitions map[string]object }
		if err := json.Unmarshal(text, &document); err != nil {
			return err
		}
		return kubernetes(dir, document.Definitions)
	}
	documents := yaml3.NewDecoder(bytes.NewReader(text))
	for {
		var crd object
		if err := documents.Decode(&crd); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if crd["kind"] == "CustomResourceDefinition" {
			if err := custom(dir, crd); err != nil {
				return err
			}
		}
	}
}

// The kinds of an OpenAPI document, each with the definitions that it needs.
func kubernetes(dir string, definitions map[string]object) error {
	for _, definition := range definitions {
		strict(definition)
	}
	// both are written as text or as a number
	either := []any{object{"type": "string"}, object{"type": "number"}}
	for _, name := range []string{"api.resource.Quantity", "util.intstr.IntOrString"} {
		definitions["io.k8s.apimachinery.pkg."+name] = object{"oneOf": either}
	}
	for name, definition := range definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 {
			continue
		}
		kind := kinds[0].(object)
		used := map[string]object{}
		collect(definition, definitions, used)
		schema := object{"$ref": "#/definitions/" + name, "definitions": used}
		used[name] = definition
		if err := write(dir, kind["group"].(string), kind["version"].(string), kind["kind"].(string), schema); err != nil {
			return err
		}
	}
	return nil
}

// The definitions that a schema refers to, directly or not.
func collect(schema any, all, used map[string]object) {
	switch schema := schema.(type) {
	case object:
		if reference, ok := schema["$ref"].(string); ok {
			name := strings.TrimPrefix(reference, "#/definitions/")
			if _, known := used[name]; !known {
				used[name] = all[name]
				collect(all[name], all, used)
			}
		}
		for _, value := range schema {
			collect(value, all, used)
		}
	case []any:
		for _, value := range schema {
			collect(value, all, used)
		}
	}
}

func custom(dir string, crd object) error {
	spec := crd["spec"].(object)
	kind := spec["names"].(object)["kind"].(string)
	for _, version := range spec["versions"].([]any) {
		version := version.(object)
		schema := version["schema"].(object)["openAPIV3Schema"].(object)
		strict(schema)
		// CRDs say nothing about what all objects have
		properties, _ := schema["properties"].(object)
		if properties == nil {
			return fmt.Errorf("%s has no properties", kind)
		}
		for name, type_ := range map[string]string{"apiVersion": "string", "kind": "string", "metadata": "object"} {
			properties[name] = object{"type": type_}
		}
		if err := write(dir, spec["group"].(string), version["name"].(string), kind, schema); err != nil {
			return err
		}
	}
	return nil
}

// strict refuses fields that a schema does not name, in all that it holds, and puts OpenAPI's own
// words into those of JSON Schema.
func strict(schema any) {
	switch schema := schema.(type) {
	case object:
		// as a name of a property these words mean nothing of that kind
		if properties, ok := schema["properties"].(object); ok {
			_, more := schema["additionalProperties"]
			if !more && schema["x-kubernetes-preserve-unknown-fields"] != true {
				schema["additionalProperties"] = false
			}
			for _, property := range properties {
				strict(property)
			}
		}
		for name, value := range schema {
			if name != "properties" && name != "enum" && name != "default" && name != "example" {
				strict(value)
			}
		}
		if schema["x-kubernetes-int-or-string"] == true {
			delete(schema, "type")
		}
		if type_, ok := schema["type"].(string); ok && schema["nullable"] == true {
			schema["type"] = []any{type_, "null"}
		}
	case []any:
		for _, value := range schema {
			strict(value)
		}
	}
}

func write(dir, group, version, kind string, schema object) error {
	if group == "" {
		group = version
	}
	folder := filepath.Join(dir, group)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, strings.ToLower(kind)+"_"+version+".json"), text, 0o644)
}
