//! The denial of the sandboxes' network: made if it is not there, looked at again and again.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{ListParams, PostParams},
};

use super::{
    Inner,
    calls::{LOOK, TRIES},
    check::{self, Denial},
    config::Wall,
    failure::{Failure, call},
    lock,
};
use crate::error::{Code, Result, SandboxError};

impl Inner {
    /// Sees to it that no sandbox has a network, or says why that is not so.
    pub(super) async fn wall(&self) -> Result<()> {
        if self.config.wall == Wall::External {
            return Ok(());
        }
        let stands = self.build_wall().await;
        *lock(&self.walled) = stands.is_ok();
        stands
    }

    async fn build_wall(&self) -> Result<()> {
        let policies = Api::<NetworkPolicy>::namespaced(self.client.clone(), &self.config.namespace);
        for _ in 0..TRIES {
            let found = call("list the network policies", policies.list(&ListParams::default())).await?;
            match check::denial(&found.items) {
                Denial::Complete => return Ok(()),
                Denial::Opened(name) => {
                    let text = format!(
                        "the network policy {name} lets traffic of sandboxes through: narrow its selector, or delete it"
                    );
                    return Err(SandboxError::new(Code::ClusterForbidden, text));
                }
                Denial::Absent => {
                    let policy = check::policy()?;
                    match call("deny the network", policies.create(&PostParams::default(), &policy)).await {
                        Ok(_) | Err(Failure { status: 0, .. }) => {} // looked at again
                        Err(Failure { status: 409, .. }) => tokio::time::sleep(LOOK).await, // another gateway's, hopefully
                        Err(failure) => return Err(failure.error),
                    }
                }
            }
        }
        let text =
            format!("the network policy {} is there and denies not everything: delete it", check::POLICY);
        Err(SandboxError::new(Code::ClusterForbidden, text))
    }
}
