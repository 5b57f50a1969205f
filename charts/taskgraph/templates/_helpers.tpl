{{/* Name of all objects: the release, with "taskgraph" in it. */}}
{{- define "taskgraph.name" -}}
{{- $name := ternary .Release.Name (printf "%s-taskgraph" .Release.Name) (contains "taskgraph" .Release.Name) -}}
{{- $name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{- define "taskgraph.selector" -}}
app.kubernetes.io/name: taskgraph
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "taskgraph.labels" -}}
{{ include "taskgraph.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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
  name: {{ include "taskgraph.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
