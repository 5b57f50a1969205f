//! Which fields of a pod template a task may set: a list of those that are allowed, not of those that are not. A field
//! that a later Kubernetes adds passes only once it stands here.
//!
//! What opens the machine to a pod (`hostPath`, `hostNetwork`, `privileged`, ...) is allowed: whoever writes a graph must be
//! allowed to create Jobs, and what pods may do in a namespace is for its Pod Security standard to say, of pods of graphs
//! as of all others. Refused is what the operator must own, and what would take the scheduler's or admission's decisions.

/// Fields of metadata, of a pod template and of the claim of an ephemeral volume.
pub const METADATA: &[&str] = &["labels", "annotations"];

/// Fields of a pod.
pub const POD: &[&str] = &[
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "os",
    "preemptionPolicy",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    // `Never`
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    // whoever holds a pod back by one must take it away
    "schedulingGates",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

/// Fields of a pod that a task may not set, and why, or what to use instead.
pub const NOT_OF_POD: &[(&str, &str)] = &[
    ("activeDeadlineSeconds", "belongs to the operator; use the task's timeout"),
    ("ephemeralContainers", "belongs to the operator; a task's pod starts without any"),
    ("nodeName", "is the scheduler's to say, which heeds taints and free room: use nodeSelector or affinity"),
    ("overhead", "comes from the runtime class: use runtimeClassName"),
    ("priority", "comes from the priority class: use priorityClassName"),
];

/// Fields of a container.
pub const CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    // of sidecars
    "restartPolicy",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// Fields of a container that a task may not set, and why.
pub const NOT_OF_CONTAINER: &[(&str, &str)] =
    &[("restartPolicyRules", "restarts inside a pod would be attempts that nobody counts; use the task's retry")];

/// Volumes: all that Kubernetes has.
pub const VOLUME: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "name",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
    use serde::{Deserialize, Deserializer, de::Visitor, forward_to_deserialize_any};

    use super::*;

    /// Notes the names of a struct's fields, and stops.
    struct Names<'a>(&'a mut Option<&'static [&'static str]>);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("no struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = Some(fields);
            Err(serde::de::Error::custom("noted"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn fields<T: for<'de> Deserialize<'de>>() -> BTreeSet<&'static str> {
        let mut names = None;
        let _ = T::deserialize(Names(&mut names));
        names.unwrap_or_default().iter().copied().collect()
    }

    /// A field that a newer version of the types has is decided on here.
    #[test]
    fn every_field_that_kubernetes_has_is_decided() {
        let both = |allowed: &[&'static str], not: &[(&'static str, &str)]| -> BTreeSet<&'static str> {
            let all: Vec<_> = allowed.iter().copied().chain(not.iter().map(|(field, _)| *field)).collect();
            let set: BTreeSet<_> = all.iter().copied().collect();
            assert_eq!(set.len(), all.len(), "each once");
            set
        };
        assert_eq!(both(POD, NOT_OF_POD), fields::<PodSpec>());
        assert_eq!(both(CONTAINER, NOT_OF_CONTAINER), fields::<Container>());
        assert_eq!(both(VOLUME, &[]), fields::<Volume>());
    }
}
