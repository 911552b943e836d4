{{- define "suffix" }}{{ with .Values.env.multiInstallSuffix }}-{{ . }}{{ end }}{{ end -}}

{{- define "containerd" }}
{{- dict "k3s" "/var/lib/rancher/k3s/agent/etc/containerd/" "rke2" "/var/lib/rancher/rke2/agent/etc/containerd/" "k0s" "/etc/k0s/" "microk8s" "/var/snap/microk8s/current/args/" | dig .Values.k8sDistribution "/etc/containerd/" }}
{{- end -}}

{{- /* Names of the shims that are on: said so, or not said and not all switched off. */ -}}
{{- define "shims" }}
{{- $on := list }}
{{- range $name, $shim := omit .Values.shims "disableAll" }}
{{- if or (eq (toString $shim.enabled) "true") (and (kindIs "invalid" $shim.enabled) (not $.Values.shims.disableAll)) }}
{{- $on = append $on $name }}
{{- end }}
{{- end }}
{{- join " " $on }}
{{- end -}}

{{- define "pod" }}
      hostPID: true
{{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{ toJson . }}
{{- end }}
      containers:
      - name: {{ .name }}
        image: {{ .root.Values.image.reference }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
        imagePullPolicy: {{ .root.Values.imagePullPolicy }}
        command: [/usr/bin/kata-deploy, {{ .action }}]
        env:
        - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: DEBUG, value: {{ .root.Values.debug | quote }}}
        - {name: SHIMS_X86_64, value: {{ include "shims" .root | quote }}}
{{- /* A default that is off is dropped, and nobody is told. */ -}}
{{- if has .root.Values.defaultShim.amd64 (splitList " " (include "shims" .root)) }}
        - {name: DEFAULT_SHIM_X86_64, value: {{ .root.Values.defaultShim.amd64 | quote }}}
{{- end }}
        - {name: INSTALLATION_PREFIX, value: {{ .root.Values.env.installationPrefix | quote }}}
        - {name: MULTI_INSTALL_SUFFIX, value: {{ .root.Values.env.multiInstallSuffix | quote }}}
        securityContext: {privileged: true}
        volumeMounts:
        - {name: containerd-conf, mountPath: /etc/containerd/}
        - {name: host, mountPath: /host/}
        - {name: drop-ins, mountPath: /drop-ins/}
      volumes:
      - {name: drop-ins, configMap: {name: kata-deploy-drop-ins{{ include "suffix" .root }}}}
      - {name: containerd-conf, hostPath: {path: {{ include "containerd" .root }}}}
      - {name: host, hostPath: {path: /}}
{{- end -}}
