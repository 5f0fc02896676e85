//! How the cluster is found.

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::{
    config::Access,
    failure::{causes, explain},
};
use crate::error::{Code, Result, SandboxError};

/// A client for the cluster.
pub(super) async fn client(access: &Access) -> Result<kube::Client> {
    let failed = |error: &dyn std::error::Error| {
        let text = format!(
            "find the cluster: {}; name a kubeconfig, or run in the cluster under a service account",
            causes(error)
        );
        SandboxError::new(Code::InvalidArgument, text)
    };
    let config = match access {
        Access::Infer => Config::infer().await.map_err(|error| failed(&error))?,
        Access::InCluster => Config::incluster().map_err(|error| failed(&error))?,
        Access::File(path, context) => {
            let file = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))?
        }
    };
    kube::Client::try_from(config).map_err(|error| explain("reach the cluster", &error).error)
}
