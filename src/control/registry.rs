//! What is declared through the admin API, put to work: documents become settings, changes are written down before they take
//! effect, and what takes time goes on as an operation.
//!
//! Owned by the configurator, on the control thread: changes are made one after the other. Whoever wants one asks through a
//! `Registrar`; what there is to see is in `Shown`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::control::operations::{Event, Operation, OperationKind, Operations};
use crate::control::recipe::{PythonEnvironment, Recipe, Tools, recipe};
use crate::control::store::Store;
use crate::core::declared::{Change, Declared, Document, PENDING, Pending, Refusal, bare, is_marked, proven};
use crate::core::settings::{EndpointSettings, Name};

mod compile;
mod content;
mod plan;
mod progress;
mod request;

pub(crate) use compile::{ISSUER, issues_tokens};
pub(crate) use progress::{Before, Progress};
pub use request::{ChangeError, ChangeRequest, Expected, Message, Outcome, Registrar, registrar};

/// What the admin listener shows of the registry.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What is declared.
    pub declared: Arc<ArcSwap<Declared>>,
    /// What goes on.
    pub operations: Operations,
    /// Keys that mean nothing here, by deployment.
    no_effect: Arc<ArcSwap<BTreeMap<Key, Vec<String>>>>,
}

impl Shown {
    /// Nothing is declared.
    pub fn nothing() -> Self {
        Self { declared: Arc::default(), operations: Operations::default(), no_effect: Arc::default() }
    }

    /// Keys of a deployment's document that mean nothing here.
    pub fn no_effect(&self, endpoint: &Name, deployment: &Name) -> Vec<String> {
        self.no_effect.load().get(&(endpoint.clone(), deployment.clone())).cloned().unwrap_or_default()
    }
}

/// A deployment whose document is at work, or can be.
#[derive(Clone, Debug)]
struct Working {
    document: Document,
    recipe: Arc<Recipe>,
    /// Changes with the files that the document names.
    content: u64,
}

type Key = (Name, Name);

/// See the module.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    declared: Declared,
    tools: Tools,
    /// Deployments that can run: their environment is there. An update whose environment is not there yet leaves the one
    /// before at work.
    working: BTreeMap<Key, Working>,
    settings: BTreeMap<Name, Arc<EndpointSettings>>,
    shown: Shown,
}

/// A change that can be made.
#[derive(Debug)]
pub(crate) struct Plan {
    next: Declared,
    working: BTreeMap<Key, Working>,
    settings: BTreeMap<Name, Arc<EndpointSettings>>,
    /// Operations whose deployments end.
    canceled: Vec<String>,
    job: Option<Job>,
}

/// What an operation has to see to.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) kind: OperationKind,
    pub(super) endpoint: Name,
    /// The endpoint's document before, if it has changed along with its deployments.
    pub(super) before: Option<Document>,
    pub(super) deployments: Vec<Target>,
    /// Changes for the time when all is well.
    pub(super) then: Vec<Change>,
}

/// A deployment that an operation waits for.
#[derive(Debug)]
pub(crate) struct Target {
    pub(super) name: Name,
    /// To be made before its replicas can start.
    pub(super) environment: Option<PythonEnvironment>,
    /// Its document before, which comes back if this one fails.
    pub(super) before: Option<Document>,
    /// What it had before comes to life first: the router was started in the middle of the change.
    pub(super) resumes: bool,
    /// It is to be gone, not ready.
    pub(super) ends: bool,
}

impl Registry {
    /// Puts to work what is declared. Deployments that cannot be are left out and told.
    pub fn new(store: Store, declared: Declared, tools: Tools, shown: Shown) -> (Self, Vec<ChangeRequest>) {
        let mut this =
            Self { store, declared, tools, working: BTreeMap::new(), settings: BTreeMap::new(), shown };
        let unfinished = this.take_up();
        this.show();
        (this, unfinished)
    }

    /// All deployments whose environment is there; the others are to be asked for again.
    fn take_up(&mut self) -> Vec<ChangeRequest> {
        let mut unfinished = Vec::new();
        for (name, endpoint) in &self.declared.endpoints {
            let pending = Pending::kept(endpoint);
            let mut again = Vec::new();
            for (deployment, document) in &endpoint.deployments {
                // What was ready once serves until its successor is.
                let runs = bare(proven(document).unwrap_or(document));
                match recipe(&runs, &self.tools) {
                    Ok(recipe) if recipe.environment.as_ref().is_none_or(PythonEnvironment::is_there) => {
                        self.working.insert((name.clone(), deployment.clone()), Working::new(&runs, recipe));
                        if is_marked(document) {
                            again.push((deployment, document));
                        }
                    }
                    Ok(_) => again.push((deployment, document)),
                    Err(error) => {
                        tracing::error!(endpoint = %name, %deployment, "the deployment cannot run: {error}");
                        self.shown.operations.begin(Operation::failed(name, deployment, &error));
                    }
                }
            }
            let waited = pending.iter().flat_map(|pending| &pending.wait);
            for waited in waited.filter_map(|name| endpoint.deployment(name)) {
                if !again.contains(&waited) {
                    again.push(waited);
                }
            }
            let then = pending.iter().flat_map(|pending| pending.changes(name)).collect::<Vec<_>>();
            if !again.is_empty() || !then.is_empty() {
                unfinished.push(ChangeRequest::again(name, &again, then));
            }
            match compile(name, &self.declared, &self.working) {
                Ok(settings) => _ = self.settings.insert(name.clone(), settings),
                Err(error) => tracing::error!(endpoint = %name, "the endpoint cannot be served: {error}"),
            }
        }
        unfinished
    }

    fn show(&self) {
        let working = self.working.iter();
        let no_effect =
            working.map(|(key, working)| (key.clone(), working.recipe.no_effect.clone())).collect();
        self.shown.no_effect.store(Arc::new(no_effect));
        self.shown.declared.store(Arc::new(self.declared.clone()));
    }

    /// The settings of all declared endpoints.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointSettings>> {
        self.settings.values()
    }

    /// Whether there is such an endpoint.
    pub(super) fn declares(&self, endpoint: &Name) -> bool {
        self.declared.endpoints.contains_key(endpoint)
    }

    /// Whether something is kept to follow for an endpoint.
    pub(super) fn has_pending(&self, endpoint: &Name) -> bool {
        self.declared.endpoints.get(endpoint).is_some_and(|endpoint| endpoint.document.contains_key(PENDING))
    }

    /// What goes on, for whoever shows it.
    pub(super) fn operations(&self) -> &Operations {
        &self.shown.operations
    }

    /// Writes a change down and takes it over; returns its job. The caller puts the settings to work.
    pub(super) fn commit(&mut self, plan: Plan) -> Result<Option<Job>, ChangeError> {
        self.store.commit(&self.declared, &plan.next).map_err(ChangeError::Store)?;
        for id in &plan.canceled {
            self.shown.operations.update(id, |operation| operation.cancel("a deployment of it is deleted"));
        }
        self.declared = plan.next;
        self.working = plan.working;
        self.settings = plan.settings;
        self.show();
        self.shown.operations.tell(Event::Declared { generation: self.declared.generation });
        Ok(plan.job)
    }

    /// The settings that a plan would have.
    pub(super) fn endpoints_of(plan: &Plan) -> impl Iterator<Item = &Arc<EndpointSettings>> {
        plan.settings.values()
    }

    /// An environment has been made: its deployment can work now. False if it is not declared any more.
    pub(super) fn prepared(&mut self, endpoint: &Name, deployment: &Name) -> bool {
        let document = self.declared.endpoints.get(endpoint).and_then(|e| e.deployments.get(deployment));
        let Some(document) = document.map(bare) else { return false };
        let Ok(recipe) = recipe(&document, &self.tools) else { return false };
        let working = Working::new(&document, recipe);
        self.working.insert((endpoint.clone(), deployment.clone()), working);
        match compile(endpoint, &self.declared, &self.working) {
            Ok(settings) => {
                self.settings.insert(endpoint.clone(), settings);
                true
            }
            Err(error) => {
                tracing::error!(%endpoint, %deployment, "the deployment cannot run: {error}");
                false
            }
        }
    }
}

/// The settings of an endpoint with those of its deployments that can work.
fn compile(
    name: &Name,
    declared: &Declared,
    working: &BTreeMap<Key, Working>,
) -> Result<Arc<EndpointSettings>, Refusal> {
    let endpoint = &declared.endpoints[name];
    let deployments = endpoint.deployments.keys().filter_map(|deployment| {
        let working = working.get(&(name.clone(), deployment.clone()))?;
        Some((deployment, &working.document, &*working.recipe, working.content))
    });
    compile::settings(name, endpoint, deployments)
}
