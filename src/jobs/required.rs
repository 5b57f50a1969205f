//! Fields that Kubernetes requires in the parts of a pod template.
//!
//! The types of `k8s_openapi` read a missing field as a zero value, so what is required has to be
//! said again. Volume kinds that Kubernetes has dropped are left out: the API server refuses those.

/// The required fields of the type `name`.
pub fn fields(name: &str) -> &'static [&'static str] {
    match name {
        "AppArmorProfile" | "SeccompProfile" => &["type"],
        "CSIVolumeSource" => &["driver"],
        "ClusterTrustBundleProjection"
        | "DownwardAPIVolumeFile"
        | "HostPathVolumeSource"
        | "ServiceAccountTokenProjection" => &["path"],
        "ConfigMapKeySelector" | "SecretKeySelector" => &["key", "name"],
        "ContainerPort" => &["containerPort"],
        "ContainerResizePolicy" => &["resourceName", "restartPolicy"],
        "EnvVar" | "PodOS" | "PodResourceClaim" | "PodSchedulingGate" | "ResourceClaim" | "Volume" => &["name"],
        "GRPCAction" | "HTTPGetAction" | "TCPSocketAction" => &["port"],
        "HTTPHeader" | "Sysctl" => &["name", "value"],
        "HostAlias" => &["ip"],
        "KeyToPath" => &["key", "path"],
        "LabelSelectorRequirement" | "NodeSelectorRequirement" => &["key", "operator"],
        "NFSVolumeSource" => &["path", "server"],
        "NodeSelector" => &["nodeSelectorTerms"],
        "ObjectFieldSelector" => &["fieldPath"],
        "PersistentVolumeClaimTemplate" => &["spec"],
        "PersistentVolumeClaimVolumeSource" => &["claimName"],
        "PodAffinityTerm" => &["topologyKey"],
        "PodReadinessGate" => &["conditionType"],
        "PodSpec" => &["containers"],
        "PreferredSchedulingTerm" => &["preference", "weight"],
        "ResourceFieldSelector" => &["resource"],
        "SleepAction" => &["seconds"],
        "TopologySpreadConstraint" => &["maxSkew", "topologyKey", "whenUnsatisfiable"],
        "TypedLocalObjectReference" | "TypedObjectReference" => &["kind", "name"],
        "VolumeDevice" => &["devicePath", "name"],
        "VolumeMount" => &["mountPath", "name"],
        "WeightedPodAffinityTerm" => &["podAffinityTerm", "weight"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1 as meta};
    use serde_json::Value;

    /// A type's required fields are those that are written even when they are zero.
    macro_rules! agree {
        ($($module:ident::$name:ident),* $(,)?) => {$(
            let Ok(Value::Object(written)) = serde_json::to_value($module::$name::default()) else { panic!("no object") };
            let mut written: Vec<_> = written.keys().map(String::as_str).collect();
            written.sort_unstable();
            assert_eq!(super::fields(stringify!($name)), written, "{}", stringify!($name));
        )*};
    }

    #[test]
    fn as_the_types_say() {
        agree!(
            core::AppArmorProfile,
            core::SeccompProfile,
            core::CSIVolumeSource,
            core::ClusterTrustBundleProjection,
            core::DownwardAPIVolumeFile,
            core::HostPathVolumeSource,
            core::ServiceAccountTokenProjection,
            core::ConfigMapKeySelector,
            core::SecretKeySelector,
            core::ContainerPort,
            core::ContainerResizePolicy,
            core::EnvVar,
            core::PodOS,
            core::PodResourceClaim,
            core::PodSchedulingGate,
            core::ResourceClaim,
            core::Volume,
            core::GRPCAction,
            core::HTTPGetAction,
            core::TCPSocketAction,
            core::HTTPHeader,
            core::Sysctl,
            core::HostAlias,
            core::KeyToPath,
            meta::LabelSelectorRequirement,
            core::NodeSelectorRequirement,
            core::NFSVolumeSource,
            core::NodeSelector,
            core::ObjectFieldSelector,
            core::PersistentVolumeClaimTemplate,
            core::PersistentVolumeClaimVolumeSource,
            core::PodAffinityTerm,
            core::PodReadinessGate,
            core::PodSpec,
            core::PreferredSchedulingTerm,
            core::ResourceFieldSelector,
            core::SleepAction,
            core::TopologySpreadConstraint,
            core::TypedLocalObjectReference,
            core::TypedObjectReference,
            core::VolumeDevice,
            core::VolumeMount,
            core::WeightedPodAffinityTerm,
            core::SecurityContext,
            core::Toleration,
            core::ResourceRequirements,
            core::Probe,
            core::EmptyDirVolumeSource,
        );
    }
}
