{{- /* Environment of every role: settings, secrets, and where its own folder is. */ -}}
{{- define "rag.envFrom" -}}
- configMapRef:
    name: {{ include "rag.fullname" . }}-config
- secretRef:
    name: {{ required "existingSecret: the name of the Secret with the credentials is needed" .Values.existingSecret }}
{{- end }}

{{- /* Volumes of every role. RAG_HOME is scratch: nothing in it outlives the pod. */ -}}
{{- define "rag.volumes" -}}
- name: home
  emptyDir:
    sizeLimit: {{ .Values.runs.scratchSize }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
- name: instance
  configMap:
    name: {{ include "rag.fullname" . }}-instance
{{- end }}

{{- define "rag.volumeMounts" -}}
- name: home
  mountPath: /var/lib/rag
- name: tmp
  mountPath: /tmp
- name: instance
  mountPath: /var/lib/rag/dagster/dagster.yaml
  subPath: dagster.yaml
  readOnly: true
- name: instance
  mountPath: /etc/rag
  readOnly: true
{{- end }}

{{- /* What makes pods start again when their configuration has changed. */ -}}
{{- define "rag.checksums" -}}
checksum/config: {{ include (print .Template.BasePath "/config.yaml") . | sha256sum }}
checksum/instance: {{ include (print .Template.BasePath "/instance.yaml") . | sha256sum }}
{{- end }}

{{- /* The pod of a role up to its containers: (dict "root" $ "account" "ingestion" "values" .Values.daemon) */ -}}
{{- define "rag.pod" -}}
serviceAccountName: {{ include "rag.account" (dict "root" .root "role" .account) }}
automountServiceAccountToken: {{ eq .account "ingestion" }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  {{- include "rag.volumes" .root | nindent 2 }}
{{- end }}

{{- /* The container of a role but for its command, ports and probes. */ -}}
{{- define "rag.container" -}}
image: {{ include "rag.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
envFrom:
  {{- include "rag.envFrom" .root | nindent 2 }}
volumeMounts:
  {{- include "rag.volumeMounts" .root | nindent 2 }}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
