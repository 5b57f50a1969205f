{{/* Name of all objects: the release, with "taskgraph" in it. */}}
{{- define "taskgraph.name" -}}
{{- $name := ternary .Release.Name (printf "%s-taskgraph" .Release.Name) (contains "taskgraph" .Release.Name) -}}
{{- $name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{/* Name of objects that belong to no namespace. Operators for one namespace each are installed side by side, and may
     share the name of their releases. */}}
{{- define "taskgraph.clusterName" -}}
{{- $name := include "taskgraph.name" . -}}
{{- ternary (printf "%s-%s" $name .Release.Namespace) $name (not (empty .Values.operator.namespace)) -}}
{{- end }}

{{/* The webhook's Service, and the Secret with the certificates that the operator makes. */}}
{{- define "taskgraph.webhook" -}}
{{ include "taskgraph.name" . }}-webhook
{{- end }}

{{/* The namespace in which graphs are served, and the test runs one. */}}
{{- define "taskgraph.servedNamespace" -}}
{{- .Values.operator.namespace | default .Release.Namespace -}}
{{- end }}

{{- define "taskgraph.selector" -}}
app.kubernetes.io/name: taskgraph
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Of everything that is not the operator's pod: those of the test must not be taken for it. */}}
{{- define "taskgraph.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "taskgraph.labels" -}}
{{ include "taskgraph.selector" . }}
{{ include "taskgraph.commonLabels" . }}
{{- end }}

{{/* The labels of everything and some of the user's, which must be others: two of one name are no YAML. Takes the root, the
     labels, and the value that they are. */}}
{{- define "taskgraph.labelsWith" -}}
{{- $own := include "taskgraph.labels" .root | fromYaml -}}
{{- $labels := .labels | default dict -}}
{{- range $key, $_ := $labels -}}
{{- if hasKey $own $key }}{{ fail (printf "%s: %s is a label of the chart's own" $.value $key) }}{{ end -}}
{{- end -}}
{{ merge $own $labels | toYaml }}
{{- end }}

{{- define "taskgraph.testLabels" -}}
app.kubernetes.io/name: taskgraph-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{ include "taskgraph.commonLabels" . }}
{{- end }}

{{- define "taskgraph.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "taskgraph.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "taskgraph.name" .) }}
{{- else -}}
{{ required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "taskgraph.subjects" -}}
- kind: ServiceAccount
  name: {{ include "taskgraph.serviceAccount" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{/* The security context that namespaces with the "restricted" standard ask of a container. */}}
{{- define "taskgraph.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "taskgraph.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The port that an address names, or that of its scheme. */}}
{{- define "taskgraph.port" -}}
{{- $url := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* The Secrets for the sink of events, as sources of a volume; empty where there are none. */}}
{{- define "taskgraph.eventSecrets" -}}
{{- with .Values.events.tokenSecret }}{{ if .name }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: token}]}
{{- end }}{{ end }}
{{- with .Values.events.loginSecret }}{{ if .name }}
- secret: {name: {{ .name | quote }}, items: [{key: username, path: login/username}, {key: password, path: login/password}]}
{{- end }}{{ end }}
{{- with .Values.events.caSecret }}{{ if .name }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: ca.crt}]}
{{- end }}{{ end }}
{{- end }}

{{/* Whether to make an object of the Prometheus Operator's world. Takes the root, the value `create`, and the kind. */}}
{{- define "taskgraph.wanted" -}}
{{- $has := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
{{- if or (eq .create "Always") (and (eq .create "Auto") $has) -}}true{{- end -}}
{{- end }}

{{/* What of Prometheus' series are this release's, for a query. */}}
{{- define "taskgraph.series" -}}
namespace="{{ .Release.Namespace }}",job="{{ include "taskgraph.name" . }}-metrics"
{{- end }}

{{/* How cert-manager learns where its authority goes. */}}
{{- define "taskgraph.injectAuthority" -}}
{{- if .Values.webhook.certManager.enabled -}}
annotations: {cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ include "taskgraph.webhook" . }}}
{{- end }}
{{- end }}

{{/* How the API server calls a webhook: `root`, and `path`. */}}
{{- define "taskgraph.webhookCall" -}}
{{- $own := .root.Values.operator.namespace -}}
{{- $served := ternary (dict "matchLabels" (dict "kubernetes.io/metadata.name" $own)) dict (not (empty $own)) -}}
{{- with .root.Values.webhook -}}
admissionReviewVersions: [v1]
clientConfig:
  service: {name: {{ include "taskgraph.webhook" $.root }}, namespace: {{ $.root.Release.Namespace | quote }}, path: {{ $.path }}, port: 443}
matchPolicy: Equivalent
sideEffects: None
namespaceSelector: {{- mergeOverwrite (deepCopy .namespaceSelector) $served | toYaml | nindent 2 }}
{{- end }}
{{- end }}
