//! Works out a change without making it: the next whole, what its deployments run, and what an operation has to see to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::request::{ChangeError, ChangeRequest};
use super::{Job, Key, Plan, Registry, Target, Working, compile};
use crate::control::operations::OperationKind;
use crate::control::recipe::recipe;
use crate::control::store::fresh_secrets;
use crate::core::declared::{
    Change, Declared, DeclaredEndpoint, Document, Facts, PENDING, Pending, apply, bare, mark, proven,
};
use crate::core::settings::Name;

impl Registry {
    /// Works out a change. `foreign` are the endpoints of the configuration file, in lower case.
    ///
    /// # Errors
    /// Why it cannot be made; nothing has changed.
    pub(in crate::control) fn plan(
        &self,
        request: &ChangeRequest,
        foreign: BTreeSet<String>,
    ) -> Result<Plan, ChangeError> {
        request.expected.iter().try_for_each(|expected| expected.check(&self.declared))?;
        let facts = Facts { foreign };
        let fresh = fresh_secrets();
        let next = apply(&self.declared, &request.changes, &facts, &fresh)?;
        // What comes later must be possible as well, as far as one can tell now.
        let later = apply(&next, &request.then, &facts, &fresh)?;
        let plan = Plan {
            next,
            working: self.working.clone(),
            settings: self.settings.clone(),
            canceled: Vec::new(),
            job: None,
        };
        let mut planning = Planning { registry: self, request, later, plan, targets: Vec::new() };
        let all = self.declared.endpoints.keys().chain(planning.plan.next.endpoints.keys());
        let all: BTreeSet<Name> = all.cloned().collect();
        let mut of = None;
        for name in all {
            if planning.endpoint(&name)? {
                of.get_or_insert(name);
            }
        }
        let Planning { mut plan, targets, .. } = planning;
        if targets.is_empty() && !request.then.is_empty() {
            // There is nothing to wait for.
            let changes = [request.changes.as_slice(), request.then.as_slice()].concat();
            let at_once = ChangeRequest { changes, then: Vec::new(), ..request.clone() };
            return self.plan(&at_once, facts.foreign);
        }
        if let Some(endpoint) = of.filter(|_| !targets.is_empty()) {
            let kind = kind_of(&targets, &plan.next, &endpoint);
            if let (false, Some(declared)) = (request.then.is_empty(), plan.next.endpoints.get_mut(&endpoint))
            {
                let wait: Vec<&Name> = targets.iter().map(|target| &target.name).collect();
                Pending::of(&request.then, &wait).keep(declared);
            }
            let document = |of: &Declared| {
                of.endpoints.get(&endpoint).map(|endpoint| without_pending(&endpoint.document))
            };
            let before =
                document(&self.declared).filter(|before| document(&plan.next).as_ref() != Some(before));
            let then = request.then.clone();
            plan.job = Some(Job { kind, endpoint, before, deployments: targets, then });
        }
        Ok(plan)
    }
}

/// A plan that is being made.
struct Planning<'r> {
    registry: &'r Registry,
    request: &'r ChangeRequest,
    /// What there will be when the operation has succeeded.
    later: Declared,
    plan: Plan,
    targets: Vec<Target>,
}

impl Planning<'_> {
    /// Whether the endpoint is part of the change.
    fn endpoint(&mut self, name: &Name) -> Result<bool, ChangeError> {
        let before = self.registry.declared.endpoints.get(name).cloned();
        let after = self.plan.next.endpoints.get(name).cloned();
        if before == after && !self.is_named(name, None) {
            return Ok(false);
        }
        let none = BTreeMap::new();
        let deployments =
            |endpoint: &Option<DeclaredEndpoint>| endpoint.as_ref().map(|e| e.deployments.clone());
        let before = deployments(&before).unwrap_or_else(|| none.clone());
        for gone in before.keys() {
            if after.as_ref().is_none_or(|after| !after.deployments.contains_key(gone)) {
                self.gone(name, gone)?;
            }
        }
        for (deployment, document) in deployments(&after).iter().flatten() {
            self.deployment(name, deployment, document, before.get(deployment))?;
        }
        match after {
            Some(_) => {
                let settings = compile(name, &self.plan.next, &self.plan.working)?;
                self.plan.settings.insert(name.clone(), settings);
            }
            None => _ = self.plan.settings.remove(name),
        }
        Ok(true)
    }

    /// Whether the request is about this deployment, or any of the endpoint's.
    fn is_named(&self, endpoint: &Name, deployment: Option<&Name>) -> bool {
        self.request.changes.iter().any(|change| match change {
            Change::ReplaceDeployment { endpoint: of, deployment: name, .. }
            | Change::PatchDeployment { endpoint: of, deployment: name, .. } => {
                of.eq_ignore_ascii_case(endpoint.as_str())
                    && deployment.is_none_or(|deployment| name.eq_ignore_ascii_case(deployment.as_str()))
            }
            _ => false,
        })
    }

    fn gone(&mut self, endpoint: &Name, deployment: &Name) -> Result<(), ChangeError> {
        self.cancel(endpoint, deployment)?;
        self.plan.working.remove(&(endpoint.clone(), deployment.clone()));
        self.targets.push(Target {
            name: deployment.clone(),
            environment: None,
            before: None,
            resumes: false,
            ends: true,
        });
        Ok(())
    }

    fn deployment(
        &mut self,
        endpoint: &Name,
        name: &Name,
        document: &Document,
        before: Option<&Document>,
    ) -> Result<(), ChangeError> {
        let key = (endpoint.clone(), name.clone());
        let new = bare(document);
        let is_same = before.map(bare).as_ref() == Some(&new);
        if is_same && !self.is_named(endpoint, Some(name)) {
            return Ok(());
        }
        let recipe = recipe(&new, &self.registry.tools).map_err(ChangeError::Recipe)?;
        let working = Working::new(&new, recipe);
        if is_same && !self.request.wait && self.registry.works_with(&key, &working) {
            self.keep(endpoint, name, before.cloned());
            return Ok(());
        }
        self.idle(endpoint, name)?;
        let environment = working.recipe.environment.clone().filter(|environment| !environment.is_there());
        let mut with_all = self.plan.working.clone();
        with_all.insert(key, working);
        // Checked as if it worked already, so that nobody learns of a mistake after a long preparation.
        let whole = if self.later.endpoints.contains_key(endpoint) { &self.later } else { &self.plan.next };
        compile(endpoint, whole, &with_all)?;
        let mut marked = new;
        // An operation that takes its change back brings what was proven.
        if self.request.by.is_none() {
            mark(&mut marked, before);
        }
        let before = proven(&marked).cloned();
        let resumes = self.request.wait && before.is_some();
        if environment.is_none() && !resumes {
            self.plan.working = with_all;
        }
        self.keep(endpoint, name, Some(marked));
        self.targets.push(Target { name: name.clone(), environment, before, resumes, ends: false });
        Ok(())
    }

    /// Puts a document into the next whole.
    fn keep(&mut self, endpoint: &Name, deployment: &Name, document: Option<Document>) {
        let of = self.plan.next.endpoints.get_mut(endpoint);
        if let (Some(endpoint), Some(document)) = (of, document) {
            endpoint.deployments.insert(deployment.clone(), document);
        }
    }

    /// An end does not wait for the end of a beginning.
    fn cancel(&mut self, endpoint: &Name, deployment: &Name) -> Result<(), ChangeError> {
        match self.registry.shown.operations.running(endpoint, deployment) {
            Some(running) if running.kind == OperationKind::Delete => self.idle(endpoint, deployment),
            Some(running) if self.request.by.as_ref() != Some(&running.id) => {
                self.plan.canceled.push(running.id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn idle(&self, endpoint: &Name, deployment: &Name) -> Result<(), ChangeError> {
        match self.registry.shown.operations.running(endpoint, deployment) {
            Some(running) if self.request.by.as_ref() != Some(&running.id) => {
                Err(ChangeError::InProgress { deployment: deployment.clone(), operation: running.id })
            }
            _ => Ok(()),
        }
    }
}

impl Registry {
    /// Whether a deployment runs just this, and well.
    fn works_with(&self, key: &Key, working: &Working) -> bool {
        let runs = self.working.get(key).is_some_and(|present| present.content == working.content);
        let last = self.shown.operations.last_about(&key.0, &key.1);
        runs && last.is_none_or(|last| last.error.is_none())
    }
}

fn without_pending(document: &Document) -> Document {
    let mut document = document.clone();
    document.remove(PENDING);
    document
}

fn kind_of(targets: &[Target], next: &Declared, endpoint: &Name) -> OperationKind {
    let scales = |target: &Target| {
        let mut after = bare(next.endpoints.get(endpoint)?.deployments.get(&target.name)?);
        let mut before = target.before.clone()?;
        if before == after {
            return None;
        }
        for document in [&mut after, &mut before] {
            document.remove("instance_count");
            document.remove("scale_settings");
        }
        (before == after).then_some(())
    };
    if targets.iter().all(|target| target.ends) {
        OperationKind::Delete
    } else if targets.iter().all(|target| scales(target).is_some()) {
        OperationKind::Scale
    } else if targets.iter().all(|target| target.before.is_none()) {
        OperationKind::Create
    } else {
        OperationKind::Update
    }
}

impl Working {
    pub(super) fn new(document: &Document, recipe: crate::control::recipe::Recipe) -> Self {
        let content = super::content::of(document);
        Self { document: document.clone(), recipe: Arc::new(recipe), content }
    }
}
