# The commands of the project. Each installs or builds what it needs, once.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench cluster-up cluster-down image plugin generate audit sbom reproduce clean

CLUSTER := hack/cluster/cluster

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'
	@echo
	@echo "  make demo KUBECONFIG=... IMAGE_PREFIX=registry/path/   runs the demo on a cluster that you have"
	@echo "  make test TESTS='unit files'                           runs some of unit, files, api, e2e, flux"
	@echo "  VERBOSE=1 shows all output of lint and test"

# Only what was given on the command line: a KUBECONFIG in the environment is
# somebody's cluster, and no demo installs anything there unasked.
demo: ## Run the examples on a real cluster (the embedded one, or yours)
	@$(if $(filter command line,$(origin KUBECONFIG)),,env -u KUBECONFIG) hack/demo

test: ## Run all tests (but those with Flux): units, files, API server, end to end
	@hack/test $(TESTS)

lint: ## Check formats, lints, scripts, charts, generated files
	@hack/lint

bench: ## Measure the engine, and the operator beside the floor
	@hack/bench

cluster-up: ## Start or repair the embedded one-node Kubernetes
	@$(CLUSTER) up >/dev/null
	@echo "export KUBECONFIG=$$($(CLUSTER) kubeconfig)"
	@echo "export PATH=$$($(CLUSTER) bindir):\$$PATH"
	@echo "kubectl get nodes"

cluster-down: ## Stop it and remove all that it made, except its programs
	@$(CLUSTER) down

image: ## Build the operator's image, and load it into the cluster if it runs
	@hack/image

plugin: ## Build kubectl-taskgraph: put target/release into PATH
	@mkdir -p target/release && install -m 755 "$$(hack/static kubectl-taskgraph)" target/release/

generate: ## Write what is made from the code: CRDs, references, schemas
	@hack/generate

audit: ## Check licences, sources and known vulnerabilities of what is built in (needs network)
	@hack/audit

sbom: ## Write what the operator is made of, as CycloneDX
	@hack/sbom

reproduce: ## Show that the same sources give the same program, wherever they lie
	@hack/reproduce

clean: cluster-down ## Remove all that was built (the cluster's programs stay cached)
	@cargo clean --quiet
