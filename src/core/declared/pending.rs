//! What is to follow a change once its deployments are ready: new traffic, and the end of deployments. Kept in the endpoint's
//! document from the change until it has followed, or cannot follow any more.

use serde_json::{Value, json};

use super::{Change, DeclaredEndpoint, Document, PENDING};
use crate::core::settings::Name;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    /// Deployments that must be ready first.
    pub wait: Vec<String>,
    /// The whole of `traffic`, if it is to change.
    pub traffic: Option<Document>,
    /// Deployments that are to end.
    pub delete: Vec<String>,
}

impl Pending {
    /// What of these changes of one endpoint is to follow its deployments.
    pub fn of(changes: &[Change], wait: &[&Name]) -> Self {
        let mut pending = Self { wait: wait.iter().map(ToString::to_string).collect(), ..Self::default() };
        for change in changes {
            match change {
                Change::SetShares { key: "traffic", shares, .. } => pending.traffic = Some(shares.clone()),
                Change::DeleteDeployment { deployment, .. } => pending.delete.push(deployment.clone()),
                _ => {}
            }
        }
        pending
    }

    /// The changes again.
    pub fn changes(&self, endpoint: &Name) -> Vec<Change> {
        let endpoint = endpoint.to_string();
        let traffic = self.traffic.iter().map(|shares| Change::SetShares {
            endpoint: endpoint.clone(),
            key: "traffic",
            shares: shares.clone(),
        });
        let delete = self.delete.iter().map(|deployment| Change::DeleteDeployment {
            endpoint: endpoint.clone(),
            deployment: deployment.clone(),
        });
        traffic.chain(delete).collect()
    }

    /// Keeps it in an endpoint's document.
    pub fn keep(&self, endpoint: &mut DeclaredEndpoint) {
        let mut kept = json!({ "wait": self.wait });
        if let Some(traffic) = &self.traffic {
            kept["traffic"] = Value::Object(traffic.clone());
        }
        if !self.delete.is_empty() {
            kept["delete"] = json!(self.delete);
        }
        endpoint.document.insert(PENDING.to_owned(), kept);
    }

    /// What an endpoint's document keeps. What is not of this form is left out: people may edit the file.
    pub fn kept(endpoint: &DeclaredEndpoint) -> Option<Self> {
        let kept = endpoint.document.get(PENDING)?;
        let texts = |key: &str| {
            let list = kept[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let traffic = kept["traffic"].as_object().cloned();
        Some(Self { wait: texts("wait"), traffic, delete: texts("delete") })
    }
}
